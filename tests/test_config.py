"""Where a program's config comes from, and what wrong ones say."""

import pytest
import torch

from project.config import load_config
from project.errors import UserError
from tests.helpers import FULL_CONFIG, SMALL_CONFIG


def load(config_file="", opts=(), **kwargs):
    return load_config(str(config_file), list(opts), default_config=str(FULL_CONFIG), **kwargs)


def test_the_default_is_the_tiny_voc_recipe():
    cfg = load()
    assert cfg.MODEL.BACKBONE.NAME == "build_resnest50_fpn_backbone"
    assert (cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.STEP_EPOCHS) == (24, (16, 22))


def test_the_config_stored_in_a_checkpoint_wins_over_the_file_beside_it(tmp_path):
    stored = load(SMALL_CONFIG, ["SOLVER.MAX_ITER", "7", "MODEL.DEVICE", "cpu"])
    weights = tmp_path / "model.pth"
    (tmp_path / "config.yaml").write_text("SOLVER:\n  MAX_ITER: 9\n")
    torch.save({"model": {"a": torch.zeros(1)}}, weights)
    assert load(opts=["MODEL.WEIGHTS", str(weights)]).SOLVER.MAX_ITER == 9
    torch.save({"model": {"a": torch.zeros(1)}, "config": stored.dump()}, weights)
    cfg = load(opts=["MODEL.WEIGHTS", str(weights)])
    assert cfg.SOLVER.MAX_ITER == 7 and cfg.MODEL.TIMM.NAME == "tf_efficientnet_lite0"
    assert cfg.MODEL.WEIGHTS == str(weights)
    assert cfg.MODEL.DEVICE == "cuda"  # of the machine, not of the recipe
    assert load(SMALL_CONFIG, ["MODEL.WEIGHTS", str(weights)]).SOLVER.MAX_ITER != 7
    assert load(opts=["SOLVER.MAX_ITER", "3"], weights=str(weights)).SOLVER.MAX_ITER == 3


def test_foreign_weights_get_the_default_recipe(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pth")
    cfg = load(opts=["MODEL.WEIGHTS", str(tmp_path / "foreign.pth")])
    assert cfg.MODEL.BACKBONE.NAME == "build_resnest50_fpn_backbone"


@pytest.mark.parametrize("value", ["0", "1", "+1", "1e0"])
def test_a_whole_number_is_a_float_too(value):
    cfg = load(opts=["SOLVER.WEIGHT_DECAY", value, "SOLVER.MAX_ITER", "7"])
    assert cfg.SOLVER.WEIGHT_DECAY == float(value) and cfg.SOLVER.MAX_ITER == 7
    assert type(cfg.SOLVER.WEIGHT_DECAY) is float and type(cfg.SOLVER.MAX_ITER) is int


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.TIMN.NAME", "x"], r"did you mean MODEL\.TIMM\.NAME"),
        (["SOLVER.BASE_LR", "fast"], "BASE_LR"),
        (["SOLVER.BASE_LR"], "has no value"),
        (["SOLVER.MAX_ITER", "5", "--overwrite", "x"], "must stand before"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "no file 'nowhere.pth'"),
    ],
)
def test_wrong_pairs_are_one_line(opts, message):
    with pytest.raises(UserError, match=message) as caught:
        load(opts=opts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  MAX_ITERS: 5\n", r"did you mean SOLVER\.MAX_ITER"),
        ("A: [1\n", "not a plain YAML"),
        ("MODEL:\n  WEIGHTS: !!python/object/apply:os.getcwd []\n", "not a plain YAML"),
        ("- 1\n", "no config keys"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml"),
        ("_BASE_: config.yaml\n", "leads back to the file itself"),
        ("", "no YAML file of config keys"),
        ("# MODEL:\n", "no YAML file of config keys"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no file 'nowhere\.yaml'"):
        load("nowhere.yaml")


@pytest.mark.parametrize(
    "path", sorted(FULL_CONFIG.parents[1].rglob("*.yaml")), ids=lambda p: p.name
)
def test_every_recipe_loads(path):
    load(path)
