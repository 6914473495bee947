"""An exported model is evaluated as the checkpoint that it was made from is."""

import json

import numpy as np
import pytest
import torch

import train_net
from project.config import get_project_cfg
from project.evaluation.exported_model import ExportedModel
from tests.helpers import share_of_partners


def detections_of(weights, generated_root, folder) -> list[dict]:
    arguments = ["--eval-only", "MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(folder)]
    arguments += ["MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(generated_root)]
    train_net.main([*arguments, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.1"])
    assert json.loads((folder / "evaluation.json").read_text())["segm"]
    (path,) = folder.glob("inference/*/detections.json")
    return json.loads(path.read_text())


def test_eval_only_takes_an_onnx_file(seeded_checkpoint, exported, generated_root, tmp_path):
    expected = detections_of(seeded_checkpoint, generated_root, tmp_path / "torch")
    found = detections_of(exported, generated_root, tmp_path / "onnx")
    assert len(found) == pytest.approx(len(expected), abs=3) and len(found) > 20
    assert min(d["score"] for d in found) >= 0.1
    # Of equally certain ones that overlap, another one may be left.
    assert share_of_partners(expected, found) > 0.95


def test_the_threshold_of_masks_can_be_another_one(exported):
    cfg = get_project_cfg()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST = 0.3
    picture = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)
    record = {"image": torch.from_numpy(picture).permute(2, 0, 1)}
    (lower,) = ExportedModel(str(exported), cfg)([record])
    cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST = 0.6
    (higher,) = ExportedModel(str(exported), cfg)([record])
    areas = [np.asarray(x["detections"].masks).sum() for x in (lower, higher)]
    assert areas[0] > areas[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.MIN_SIZE_TEST", "96"),
        ("TEST.DETECTIONS_PER_IMAGE", "9"),
        ("INPUT.REDUCED_DECODING", "True"),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.4"),
    ],
)
def test_keys_that_are_fixed_in_the_file_are_refused(exported, capsys, key, value):
    with pytest.raises(SystemExit, match="2"):
        train_net.main(["--eval-only", "MODEL.WEIGHTS", str(exported), key, value])
    assert f"{key} is fixed in {exported}" in capsys.readouterr().err


def test_a_gpu_for_the_file_is_refused(exported, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_net.main(["--eval-only", "MODEL.WEIGHTS", str(exported), "MODEL.DEVICE", "cuda"])
    assert "is evaluated on the CPU" in capsys.readouterr().err


def test_training_from_an_onnx_file_is_one_line(exported, small_opts, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_net.main([*small_opts, "MODEL.WEIGHTS", str(exported)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not trained" in error and str(exported) in error
