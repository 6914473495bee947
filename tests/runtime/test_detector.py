"""The runtime: what it takes, what it refuses, and what it does without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from project.errors import UserError
from project.runtime import Detections, OnnxDetector, load
from tests.helpers import REPOSITORY


@pytest.fixture(scope="module")
def picture(generated_root) -> np.ndarray:
    file = sorted((generated_root / "test_images").iterdir())[0]
    return cv2.imread(str(file))[..., ::-1]


def test_grey_and_transparent_pictures_are_pictures(exported, picture):
    detector = load(exported)
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    expected = detector(np.repeat(grey[..., None], 3, axis=2))
    assert len(expected) > 0 and isinstance(expected, Detections)
    for same in (grey, grey[..., None]):
        assert np.array_equal(detector(same).boxes_xyxy, expected.boxes_xyxy)
    rgba = np.dstack([picture, np.zeros(picture.shape[:2], dtype=np.uint8)])
    assert np.array_equal(detector(rgba).scores, detector(picture).scores)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((20, 30, 3), dtype=np.uint16),
        np.zeros((20, 30, 3), dtype=np.float32),
        np.zeros((0, 30, 3), dtype=np.uint8),
        np.zeros((20, 30, 2), dtype=np.uint8),
        np.zeros((1, 4000, 3), dtype=np.uint8),
        np.zeros((1, 20, 30, 3), dtype=np.uint8),
        "picture.jpg",
    ],
)
def test_what_is_no_picture_is_one_line(exported, wrong):
    with pytest.raises(UserError) as error:
        load(exported)(wrong)
    assert len(str(error.value).splitlines()) == 1


def test_certainty(exported, picture):
    everything = load(exported, score_threshold=0)(picture)
    middle = float(np.median(everything.scores))
    some = load(exported, score_threshold=middle)(picture)
    assert 0 < len(some) < len(everything) and some.scores.min() > middle
    with pytest.raises(UserError, match="from 0 to 1"):
        load(exported, score_threshold=2)


def test_files_that_are_no_detector_are_one_line(exported, tmp_path):
    content = exported.read_bytes()
    missing, cut, text, foreign = (tmp_path / name for name in ("no", "cut", "text", "foreign"))
    cut.write_bytes(content[: len(content) // 2])
    text.write_text("no model")
    other = onnx.load(str(exported))
    del other.metadata_props[:]
    onnx.save(other, str(foreign))
    for path, words in (
        (missing, "there is no file"),
        (cut, "damaged"),
        (text, "damaged"),
        (foreign, "export_model.py"),
    ):
        with pytest.raises(UserError, match=words) as error:
            load(path)
        assert len(str(error.value).splitlines()) == 1 and str(path) in str(error.value)


def test_a_provider_that_is_not_there_is_one_line(exported):
    with pytest.raises(UserError, match=r"NoProvider.*CPUExecutionProvider"):
        OnnxDetector(exported, providers=["NoProvider"])
    with pytest.raises(UserError, match=r"NoProvider"):
        OnnxDetector(exported, providers=[("NoProvider", {"device_id": 1})])
    with pytest.raises(UserError, match=r"give a list, \['CPUExecutionProvider'\]"):
        OnnxDetector(exported, providers="CPUExecutionProvider")
    OnnxDetector(exported, providers=[("CPUExecutionProvider", {})])


def test_a_provider_that_onnxruntime_leaves_out_is_one_line(exported, monkeypatch):
    """As CUDA's is where its libraries do not load."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(UserError, match="cannot use CUDAExecutionProvider here"):
        OnnxDetector(exported, providers=available)


# What the runtime takes, and what onnxruntime needs of its own; predict.py needs some more.
RUNTIME_PACKAGES = ["numpy", "cv2", "onnxruntime", "flatbuffers", "google", "packaging"]
PREDICT_PACKAGES = [*RUNTIME_PACKAGES, "PIL", "pycocotools", "tqdm"]


def run_with(packages: list[str], folder: Path, arguments: list[str]) -> str:
    """The output of Python where no other packages than these are installed."""
    installed = Path(np.__file__).parent.parent
    for name in packages:
        for path in [installed / name, *installed.glob(f"{name}.libs")]:
            if path.exists():
                (folder / path.name).symlink_to(path)
    for libraries in installed.glob("*.libs"):
        if not (folder / libraries.name).exists():
            (folder / libraries.name).symlink_to(libraries)
    result = subprocess.run(
        [sys.executable, "-S", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_without_torch_and_detectron2(exported, generated_root, tmp_path, picture):
    file = sorted((generated_root / "test_images").iterdir())[0]
    program = f"""
import importlib.util, cv2
assert not any(importlib.util.find_spec(x) for x in ("torch", "detectron2", "PIL", "pycocotools"))
from project.runtime import load
found = load({str(exported)!r})(cv2.imread({str(file)!r})[..., ::-1])
print(len(found), found.scores.sum(), found.class_names[0], found.masks[0].sum())
"""
    number, scores, name, pixels = run_with(RUNTIME_PACKAGES, tmp_path, ["-c", program]).split()
    expected = load(exported)(picture)
    assert int(number) == len(expected) and name == expected.class_names[0]
    assert float(scores) == pytest.approx(float(expected.scores.sum()), rel=1e-4)
    assert int(pixels) == expected.masks[0].sum()


def test_predict_without_torch_and_detectron2(exported, generated_root, tmp_path):
    folder, packages = tmp_path / "predictions", tmp_path / "packages"
    packages.mkdir()
    pictures = str(generated_root / "test_images")
    options = ["--weights", str(exported), "--output", str(folder), "--masks", "--score", "0.1"]
    output = run_with(PREDICT_PACKAGES, packages, ["scripts/predict.py", *options, pictures])
    content = json.loads((folder / "coco.json").read_text())
    assert f"{len(content['annotations'])} objects in 6 pictures" in output
    assert len(content["annotations"]) > 6 and len(list((folder / "pictures").iterdir())) == 6
