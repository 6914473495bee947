"""Test-time augmentation: nothing where nothing is asked for, symmetric with flips."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import train_net
from project import Predictor
from project.errors import UserError
from project.meta_arch.test_time_augmentation import as_tested
from tests.helpers import load_small_config

CPU = ["MODEL.DEVICE", "cpu"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (96, 128, 3)).astype(np.uint8)


def augmented(checkpoint, *opts: str) -> Predictor:
    return Predictor(checkpoint, opts=[*CPU, *opts], test_time_augmentation=True)


def test_one_size_without_flips_is_the_plain_model(seeded_checkpoint, picture):
    opts = ["MODEL.ROI_MASK_HEAD.THRESH_TEST", "0.47"]
    plain = Predictor(seeded_checkpoint, opts=[*CPU, *opts])(picture)
    opts += ["TEST.AUG.SCALES", "(1.0,)", "TEST.AUG.FLIP", "False"]
    found = augmented(seeded_checkpoint, *opts)(picture)
    # A second NMS of what one NMS has left, in another order where scores are equal.
    assert len(found) == len(plain) > 10
    assert np.allclose(found.scores, plain.scores, atol=1e-6)
    assert np.allclose(found.boxes_xyxy, plain.boxes_xyxy, atol=1e-3)
    differing = np.asarray(found.masks) != np.asarray(plain.masks)
    assert differing.mean() < 1e-3


def test_with_flips_a_flipped_picture_has_flipped_objects(seeded_checkpoint, picture):
    predictor = augmented(seeded_checkpoint, "TEST.AUG.SCALES", "(1.0, 1.5)")
    straight, flipped = predictor.predict([picture, np.ascontiguousarray(picture[:, ::-1])])
    assert np.allclose(straight.scores[:20], flipped.scores[:20], atol=1e-5)
    width = straight.image_hw[1]
    mirrored = straight.boxes_xyxy.copy()
    mirrored[:, [0, 2]] = width - mirrored[:, [2, 0]]
    assert np.allclose(mirrored[:20], flipped.boxes_xyxy[:20], atol=0.01)
    for index in range(20):
        differing = straight.masks[index][:, ::-1] != flipped.masks[index]
        assert differing.mean() < 0.01


def test_after_an_error_the_next_picture_has_masks(seeded_checkpoint, picture, monkeypatch):
    """Such as one that the memory is too small for."""
    predictor = augmented(seeded_checkpoint, "TEST.AUG.SCALES", "(1.0,)")
    expected = predictor(picture)
    with monkeypatch.context() as patch:
        patch.setattr(predictor.model.model.roi_heads, "_forward_box", None)
        with pytest.raises(TypeError):
            predictor(picture)
    found = predictor(picture)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(np.asarray(found.masks), np.asarray(expected.masks))


def test_a_picture_of_which_a_size_leaves_nothing_is_one_line(seeded_checkpoint):
    picture = np.zeros((1, 200, 3), dtype=np.uint8)
    sizes = ("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "150", "TEST.AUG.FLIP", "False")
    assert augmented(seeded_checkpoint, *sizes, "TEST.AUG.SCALES", "(1.0,)")(picture) is not None
    with pytest.raises(UserError, match="200 x 1 pixels is too narrow"):
        augmented(seeded_checkpoint, *sizes, "TEST.AUG.SCALES", "(1.0, 0.5)")(picture)


def test_evaluation_uses_it_where_the_config_asks_for_it(seeded_checkpoint, tmp_path):
    results = {}
    for name in ("plain", "augmented"):
        opts = ["OUTPUT_DIR", str(tmp_path / name), "TEST.AUG.ENABLED", str(name == "augmented")]
        train_net.main(["--eval-only", "MODEL.WEIGHTS", str(seeded_checkpoint), *CPU, *opts])
        folder = tmp_path / name / "inference/tiny_voc_test_annotated"
        results[name] = json.loads((folder / "detections.json").read_text())
    assert results["plain"] != results["augmented"]
    # The predictor finds the same.
    source = json.loads((folder / "dataset.json").read_text())
    image = json.loads(Path(source["json"]).read_text())["images"][0]
    found = augmented(seeded_checkpoint)(f"{source['images']}/{image['file_name']}")
    expected = [d["score"] for d in results["augmented"] if d["image_id"] == image["id"]]
    assert found.scores.tolist() == expected


def test_sizes_may_be_in_pixels(seeded_checkpoint, picture):
    pixels = ("TEST.AUG.MIN_SIZES", "(72, 96)", "TEST.AUG.MAX_SIZE", "400")
    in_pixels = augmented(seeded_checkpoint, "TEST.AUG.SCALES", "()", *pixels)(picture)
    relative = augmented(seeded_checkpoint, "TEST.AUG.SCALES", "(0.75, 1.0)")(picture)
    assert np.array_equal(in_pixels.scores, relative.scores)
    with pytest.raises(UserError, match="1 or more"):
        augmented(seeded_checkpoint, "TEST.AUG.SCALES", "()", "TEST.AUG.MIN_SIZES", "()")


def test_a_model_with_a_mask_head_for_each_stage_and_one_without(small_opts, picture):
    for opts in (["MODEL.ROI_MASK_HEAD.NUM_HEADS", "3"], ["MODEL.MASK_ON", "False"]):
        opts = [*opts, "TEST.AUG.ENABLED", "True", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
        cfg = load_small_config([*small_opts, *opts])
        model = as_tested(cfg, build_model(cfg)).eval()
        image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        with torch.no_grad():
            (output,) = model([{"image": image, "height": 96, "width": 128}])
        assert len(output["instances"]) > 0
        assert output["instances"].has("pred_masks") == cfg.MODEL.MASK_ON
