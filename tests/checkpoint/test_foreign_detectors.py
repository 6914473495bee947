"""Detectors of mmdetection and of ResNeSt's fork: recognised, filled completely, converted back."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from project import load_weights
from project.checkpoint.conversion import to_detectron2, to_mmdetection
from project.checkpoint.mmdetection import MMDETECTION_NAMES
from project.checkpoint.name_table import NameTable
from project.checkpoint.reading import class_names, read_checkpoint
from project.checkpoint.resnest_fork import FORK_NAMES
from project.config import load_config
from project.errors import UserError
from scripts import convert_checkpoint
from tests.helpers import FULL_CONFIG, REPOSITORY

BODY = "backbone.bottom_up.body."
NAMES = ("cat", "dog", "cow")
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"),
    *("MODEL.TIMM.NAME", "resnest14d", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_HEADS.NUM_CLASSES", "3"),
]


def detector(*opts: str) -> nn.Module:
    """The full recipe in small: the smallest ResNeSt, narrow heads, three classes."""
    return build_model(load_config(str(FULL_CONFIG), [*SMALL, *opts], default_config=""))


def mmdetection_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {MMDETECTION_NAMES.to_theirs(n): t for n, t in model.state_dict().items()}


def fork_state(model: nn.Module, prefix: str = "backbone.bottom_up.") -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in model.state_dict().items():
        theirs = FORK_NAMES.to_theirs(name)
        # Frozen norms of the fork have no counter.
        if not name.endswith("num_batches_tracked"):
            state[prefix + theirs if theirs else name] = tensor
    return state


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    others = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, others[name]) or name.endswith("num_batches_tracked"), name


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return detector()


def version_2(state: dict) -> dict:
    meta = {"epoch": 12, "CLASSES": NAMES, "hook_msgs": {"best_score": np.float64(0.3)}}
    return {"meta": meta, "state_dict": state, "optimizer": {"state": {}}}


def version_3(state: dict) -> dict:
    meta = {"iter": 5, "dataset_meta": {"classes": NAMES}, "seed": np.int64(3)}
    return {"meta": meta, "state_dict": state, "message_hub": {"loss": history()}}


def history() -> object:
    """As mmengine's HistoryBuffer pickles: an array, and its methods by name."""
    module = ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.array([0.5, 0.25])
            self.statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return self._log_history.mean()

    HistoryBuffer.__module__ = module.__name__
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        sys.modules[name] = ModuleType(name)
    sys.modules[module.__name__] = module
    return HistoryBuffer()


@pytest.fixture(autouse=True)
def _forget_the_pretended_mmengine():
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "mmengine"]:
        del sys.modules[name]


@pytest.mark.parametrize("layout", [version_2, version_3])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("with_ema", [False, True])
def test_mmdetections_checkpoints_fill_everything(tmp_path, model, layout, prefix, with_ema):
    state = {prefix + name: tensor for name, tensor in mmdetection_state(model).items()}
    if with_ema:  # as the EMA hook of version 2 names them
        state |= {f"ema_{n.replace('.', '_')}": torch.zeros(1) for n in mmdetection_state(model)}
    torch.save(layout(state), tmp_path / "latest.pth")
    other = detector()
    report = load_weights(other, str(tmp_path / "latest.pth"))
    assert report.format == "mmdetection" and not report.unfilled
    assert len(report.left) == (len(state) // 2 if with_ema else 0)
    assert_same(other, model)
    assert class_names(read_checkpoint(str(tmp_path / "latest.pth"))) == NAMES


def test_the_forks_detectors_fill_everything(tmp_path, model):
    state = fork_state(model)
    # Its Detectron2 (0.1) stored these too.
    state |= {"pixel_mean": torch.zeros(3), "pixel_std": torch.ones(3)}
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    assert "backbone.bottom_up.stem.conv1_3.norm.weight" in state
    assert "backbone.bottom_up.res5.0.shortcut.norm.running_var" in state
    torch.save({"model": state, "iteration": 9}, tmp_path / "fork.pth")
    other = detector()
    report = load_weights(other, str(tmp_path / "fork.pth"))
    assert report.format == "ResNeSt's fork of Detectron2"
    assert all(name.endswith("num_batches_tracked") for name in report.unfilled)
    assert set(report.left.values()) == {"from the config"}
    assert_same(other, model)


def body_state(model: nn.Module, kind: str) -> dict[str, torch.Tensor]:
    ours = {n: t for n, t in model.state_dict().items() if n.startswith(BODY)}
    if kind == "fork":
        state = {FORK_NAMES.to_theirs(name): tensor for name, tensor in ours.items()}
        return state | {"fc.weight": torch.zeros(10, 2048)}
    if kind == "mmdetection":
        state = {MMDETECTION_NAMES.to_theirs(n): t for n, t in ours.items()}
        return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    # The ResNeSt authors' own files have timm's names, without counters in old ones.
    state = {name.removeprefix(BODY): tensor for name, tensor in ours.items()}
    return state | {"fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)}


@pytest.mark.parametrize("kind", ["fork", "mmdetection", "authors"])
def test_imagenet_bodies_of_every_naming_fill_the_body(tmp_path, model, kind):
    torch.save(body_state(model, kind), tmp_path / "body.pth")
    other = detector()
    report = load_weights(other, str(tmp_path / "body.pth"))
    assert set(report.filled) == {n for n in other.state_dict() if n.startswith(BODY)}
    for name in report.filled:
        assert torch.equal(other.state_dict()[name], model.state_dict()[name]), name


def refusal(tmp_path, state: dict, *opts: str) -> str:
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "latest.pth")
    with pytest.raises(UserError) as caught:
        load_weights(detector(*opts), str(tmp_path / "latest.pth"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("opts", "advice"),
    [
        (("MODEL.ROI_HEADS.NUM_CLASSES", "5"), "trained on 3 classes, the data set has 5"),
        (("MODEL.ROI_MASK_HEAD.NUM_HEADS", "1"), "set MODEL.ROI_MASK_HEAD.NUM_HEADS 3"),
        (("MODEL.TIMM.NAME", "resnest26d"), "its body has (1, 1, 1, 1) blocks"),
        (("MODEL.FPN.NORM", "BN"), 'set MODEL.FPN.NORM ""'),
        (("MODEL.ROI_BOX_HEAD.NORM", ""), "set MODEL.ROI_BOX_HEAD.NORM SyncBN"),
    ],
)
def test_what_does_not_fit_is_named_with_the_key_to_set(tmp_path, model, opts, advice):
    assert advice in refusal(tmp_path, mmdetection_state(model), *opts)


def test_a_deeper_resnest_is_named(tmp_path):
    with torch.device("meta"):
        deep = detector("MODEL.DEVICE", "meta", "MODEL.TIMM.NAME", "resnest101e")
    state = {n: torch.empty(t.shape) for n, t in mmdetection_state(deep).items()}
    message = refusal(tmp_path, state, "MODEL.TIMM.NAME", "resnest50d")
    assert "MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.TIMM.NAME resnest101e" in message


def test_one_tensor_too_few_or_too_many_is_an_error(tmp_path, model):
    state = mmdetection_state(model)
    message = refusal(tmp_path, {k: v for k, v in state.items() if "fc_reg.bias" not in k})
    assert "lacks 3 tensors" in message and "roi_heads.box_predictor" in message
    message = refusal(tmp_path, state | {"roi_head.semantic_head.weight": torch.zeros(1)})
    assert "has 1 that the model lacks" in message


def test_mmdetection_to_ours_and_back_is_the_same_bytes(model):
    state = mmdetection_state(model)
    content = {"model": state, "meta": {"CLASSES": NAMES}}
    ours = to_detectron2(content)
    assert set(ours["model"]) == set(model.state_dict())
    back = to_mmdetection(ours)
    assert list(back["state_dict"]) == list(state)
    for name, tensor in state.items():
        same = back["state_dict"][name]
        assert same.dtype == tensor.dtype and same.numpy().tobytes() == tensor.numpy().tobytes()
    assert back["meta"]["CLASSES"] == back["meta"]["dataset_meta"]["classes"] == NAMES


def test_our_categories_become_the_class_names_of_the_conversion(model):
    content = {"model": model.state_dict(), "categories": {7: "cow", 2: "cat", 5: "dog"}}
    assert to_mmdetection(content)["meta"]["CLASSES"] == ("cat", "dog", "cow")


def test_what_has_no_name_on_the_other_side_is_not_converted(model):
    one_head = detector("MODEL.ROI_MASK_HEAD.NUM_HEADS", "1").state_dict()
    with pytest.raises(UserError, match=r"mask_head\.mask_fcn1"):
        to_mmdetection({"model": one_head})
    with pytest.raises(UserError, match="semantic_head"):
        to_detectron2({"model": mmdetection_state(model) | {"semantic_head.a": torch.zeros(1)}})
    with pytest.raises(UserError, match="body only"):
        to_detectron2({"model": body_state(model, "fork")})
    with pytest.raises(UserError, match="named as mmdetection"):
        to_mmdetection({"model": mmdetection_state(model)})


@pytest.mark.slow
def test_the_program_converts_there_and_back(tmp_path, model):
    torch.save(version_2(mmdetection_state(model)), tmp_path / "a.pth")

    def convert(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "scripts/convert_checkpoint.py", *words]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    a, b, c = (str(tmp_path / f"{name}.pth") for name in "abc")
    assert "names of detectron2" in convert(a, b).stdout
    assert "names of mmdetection" in convert(b, c).stdout
    assert read_checkpoint(c)["meta"]["CLASSES"] == NAMES
    refused = convert(a, b)
    assert refused.returncode == 2 and "--overwrite" in refused.stderr
    refused = convert(a, str(tmp_path / "d.pth"), "--to", "mmdetection")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "d.pth").exists()
    assert "names of detectron2" in convert(a, b, "--overwrite").stdout


class Payload:
    def __init__(self, function: str):
        self.function = function

    def __reduce__(self):
        import builtins
        import os

        calls = {"system": (os.system, ("touch owned",)), "exec": (builtins.exec, ("1",))}
        return calls[self.function]


@pytest.mark.parametrize("function", ["system", "exec"])
@pytest.mark.parametrize("where", ["meta", "state_dict"])
def test_code_in_a_checkpoint_is_refused_in_one_line(tmp_path, monkeypatch, function, where):
    monkeypatch.chdir(tmp_path)
    content = version_2({"roi_head.a": torch.zeros(1)})
    content[where]["x"] = Payload(function)
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=f"other Python objects.*{function}.*refused") as caught:
        read_checkpoint(str(tmp_path / "evil.pth"))
    assert "\n" not in str(caught.value) and not (tmp_path / "owned").exists()


def test_a_stand_in_makes_nothing_but_an_empty_object(tmp_path):
    torch.save(version_3({"roi_head.a": torch.zeros(1)}), tmp_path / "a.pth")
    buffer = read_checkpoint(str(tmp_path / "a.pth"))["message_hub"]["loss"]
    assert vars(buffer) == {}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"CLASSES": ("a", "b")}, ("a", "b")),
        ({"CLASSES": "ship"}, ("ship",)),
        ({"dataset_meta": {"CLASSES": ["a"]}}, ("a",)),
        ({"dataset_meta": {"classes": ["a"]}, "CLASSES": ("b",)}, ("a",)),
        ({}, None),
        (None, None),
    ],
)
def test_class_names_of_both_versions(meta, expected):
    assert class_names({"meta": meta}) == expected


def test_the_most_specific_row_of_a_table_renames():
    table = NameTable({"a.*": "x.*", "a.*.conv": "x.*.c", "a.7": "last"})
    assert table.to_ours("a.3.conv.weight") == "x.3.c.weight"
    assert table.to_ours("a.3.bias") == "x.3.bias"
    assert table.to_ours("a.7.bias") == "last.bias"
    assert table.to_ours("a.3.convolution.weight") == "x.3.convolution.weight"
    assert table.to_ours("ab.3.weight") is None and table.to_theirs("x.3.c.weight") is not None


def test_a_checkpoint_of_this_project_keeps_what_it_says_about_itself(seeded_checkpoint, tmp_path):
    content = read_checkpoint(str(seeded_checkpoint))
    converted = to_detectron2(content)
    assert converted["categories"] == content["categories"]
    assert converted["config"] == content["config"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.onnx"])
def test_a_name_of_another_format_is_refused(seeded_checkpoint, tmp_path, capsys, name):
    with pytest.raises(SystemExit, match="2"):
        convert_checkpoint.main([str(seeded_checkpoint), str(tmp_path / name)])
    assert "is a .pth file" in capsys.readouterr().err and not list(tmp_path.iterdir())
