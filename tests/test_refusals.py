"""What a user can do wrong is said in one line, before any work and with nothing changed."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

import train_net
from tests.helpers import SMALL_CONFIG, refused, run_pairs


def remove_a_picture(root: Path) -> None:
    next((root / "train_images").iterdir()).unlink()


def truncate_the_json(root: Path) -> None:
    path = root / "pascal_train.json"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "pairs", "message"),
    [
        (remove_a_picture, [], "1 x image-missing (train_000002.jpg,"),
        (truncate_the_json, [], "not valid JSON"),
        (shutil.rmtree, [], "no data at DATASETS.ROOT"),
        (None, ["MODEL.TIMM.NAMES", "x"], "did you mean MODEL.TIMM.NAME?"),
        (None, ["MODEL.TIMM.NAME", "resnet18"], "is for another model"),
        (None, ["MODEL.WEIGHTS", "nowhere.pth"], "no file 'nowhere.pth'"),
        (None, ["MODEL.WEIGHTS", "tim://resnest50d"], "or kind of address"),
        (None, ["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER 0: choose 1 or more"),
        (None, ["DATASETS.TRAIN", "('tiny_voc_test',)"], "has no annotations"),
        (None, ["DATASETS.TRAIN", "('voc',)"], "no data set 'voc'"),
        (None, ["TEST.BEST_METRIC", "segm/mAP"], "choose one of bbox/AP, bbox/AP50"),
        (None, ["MODEL.MASK_ON", "False"], "TEST.BEST_METRIC is 'segm/AP'"),
    ],
)
def test_a_mistake_is_one_line_before_training(
    generated_root, tmp_path, capsys, damage, pairs, message
):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    if damage:
        damage(root)
    arguments = ["--config-file", str(SMALL_CONFIG), *run_pairs(root, tmp_path / "run"), *pairs]
    assert message in refused(arguments, capsys)
    assert not list(tmp_path.glob("run/*.pth"))


@pytest.mark.parametrize(
    ("options", "pairs", "message"),
    [
        (["--num-gpus", "99"], [], "99 GPU(s) asked for"),
        (["--num-gpus", "-1"], [], "--num-gpus -1"),
        (["--resume"], [], "--resume: there is no checkpoint"),
        (["--resume", "--overwrite"], [], "--resume goes with neither"),
        (["--format-only", "a.json"], [], "--format-only needs --eval-only"),
        (["--eval-only"], ["MODEL.WEIGHTS", ""], "--eval-only needs MODEL.WEIGHTS"),
        ([], ["SOLVER.MAX_ITER", "5", "--overwrite"], "must stand before"),
        (["--num-gpus", "3"], ["MODEL.DEVICE", "cpu"], "choose a multiple of 3"),
        (["--num-gpus", "0"], ["MODEL.DEVICE", "cuda"], "--num-gpus 0"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, capsys, options, pairs, message):
    arguments = ["--config-file", str(SMALL_CONFIG), *options]
    arguments += ["OUTPUT_DIR", str(tmp_path / "run"), *pairs]
    assert message in refused(arguments, capsys)


@pytest.mark.parametrize(
    "option",
    [
        ["--num-machines", "2"],
        ["--dist-url", "tcp://a:1"],
        ["--num-gpus", "2", "MODEL.DEVICE", "cpu"],
    ],
)
def test_options_that_torchrun_overrules_are_one_line(monkeypatch, capsys, option):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    message = refused(["--config-file", str(SMALL_CONFIG), *option], capsys)
    assert "torchrun has started the processes" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_asking_for_one_is_an_error_and_asking_for_nothing_is_not(capsys):
    message = refused(["--config-file", str(SMALL_CONFIG), "MODEL.DEVICE", "cuda"], capsys)
    assert "sees 0" in message and "MODEL.DEVICE cpu" in message


def test_the_weights_that_training_starts_from_are_not_replaced(trained, tmp_path, capsys):
    weights = tmp_path / "latest.pth"  # the original's name
    weights.write_bytes((trained / "latest.pth").read_bytes())
    before = weights.read_bytes()
    pairs = ["OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "latest.pth"]
    assert "move it away" in refused(pairs, capsys)
    assert "would delete MODEL.WEIGHTS" in refused(["--overwrite", *pairs], capsys)
    assert weights.read_bytes() == before


def test_exports_are_not_overwritten_and_need_a_set(trained, tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text("mine")
    weights = ["MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    message = refused(["--eval-only", "--format-only", str(path), *weights], capsys)
    assert "there already" in message and path.read_text() == "mine"
    train_net.main(["--eval-only", "--overwrite", "--format-only", str(path), *weights])
    assert len(json.loads(path.read_text())) == 30


def test_evaluating_without_annotations_names_the_sets_that_have_some(trained, capsys):
    arguments = ["--eval-only", "MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    message = refused([*arguments, "DATASETS.TEST", "('tiny_voc_test',)"], capsys)
    assert "tiny_voc_test_annotated" in message


def test_weights_of_another_architecture_at_evaluation(generated_root, tmp_path, capsys):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "foreign.pth")
    arguments = ["--eval-only", "--config-file", str(SMALL_CONFIG)]
    arguments += run_pairs(generated_root, tmp_path / "run")
    message = refused([*arguments, "MODEL.WEIGHTS", str(tmp_path / "foreign.pth")], capsys)
    assert "is for another model" in message


def test_categories_that_disagree_with_the_checkpoint(trained, generated_root, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    content = json.loads((root / "pascal_train.json").read_text())
    content["categories"][0]["name"] = "aeroplane"
    (root / "pascal_train.json").write_text(json.dumps(content))
    arguments = ["--eval-only", "MODEL.WEIGHTS", str(trained / "latest.pth")]
    message = refused([*arguments, "MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(root)], capsys)
    assert "disagree" in message and "aeroplane" in message


def test_polygon_targets_need_polygons(generated_root, tmp_path, capsys):
    arguments = ["--config-file", str(SMALL_CONFIG), *run_pairs(generated_root, tmp_path / "run")]
    message = refused([*arguments, "INPUT.MASK_FORMAT", "polygon"], capsys)
    assert "is an RLE; set INPUT.MASK_FORMAT bitmask" in message
