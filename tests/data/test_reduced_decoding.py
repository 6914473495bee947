"""Large photographs decoded at a part of their size: the model is given the same, sooner."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import ExifTags, Image

from project.data import mapper as mapper_module
from project.data.mapper import InstanceMapper, build_mapper
from project.data.reading import read_image
from project.data.segmentation import compressed_rle
from project.data.synthetic import render_scene
from project.errors import UserError
from project.seeding import seeded
from tests.helpers import load_small_config

KEYS = ["INPUT.REDUCED_DECODING", "True", "INPUT.MIN_SIZE_TRAIN", "(100, 150)"]
KEYS += ["INPUT.MAX_SIZE_TRAIN", "400"]


def photograph(path, height: int, width: int, orientation: int = 1) -> dict:
    """A record of a large JPEG with two objects: an ellipse, bright on dark, as RLE and polygon."""
    mask = np.zeros((height, width), np.uint8)
    center, axes = (int(width * 0.7), int(height * 0.6)), (width // 6, height // 5)
    outline = cv2.ellipse2Poly(center, axes, 20, 0, 360, 4)
    cv2.fillPoly(mask, [outline], 1)
    texture = cv2.resize(render_scene(0, "train", 0).image, (width, height)) // 8
    pixels = texture + 200 * mask[..., None]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # 6: whoever shows the file turns it by 90 degrees clockwise.
    stored = np.rot90(pixels) if orientation == 6 else pixels
    Image.fromarray(stored).save(path, "JPEG", quality=95, exif=exif)
    x, y, w, h = cv2.boundingRect(mask)
    common = {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0, "category_id": 0}
    said = compressed_rle(mask.view(bool)), [outline.astype(float).ravel().tolist()]
    annotations = [{**common, "segmentation": segmentation} for segmentation in said]
    size = {"height": height, "width": width}
    return {"file_name": str(path), "image_id": 1, **size, "annotations": annotations}


@pytest.fixture
def decoded_sizes(monkeypatch) -> list[tuple[int, int]]:
    sizes = []

    def spy(*arguments):
        image = read_image(*arguments)
        sizes.append(image.shape[:2])
        return image

    monkeypatch.setattr(mapper_module, "read_image", spy)
    return sizes


def mapper_of(opts: list[str]) -> InstanceMapper:
    return build_mapper(load_small_config(opts), is_train=True)


def with_and_without(opts: list[str], record: dict, seeds=(0,)) -> Iterator[tuple[dict, dict]]:
    """What the model is given, for each seed."""
    reduced, whole = mapper_of(opts), mapper_of([*opts, "INPUT.REDUCED_DECODING", "False"])
    for seed in seeds:
        with seeded(seed):
            found = reduced(record)
        with seeded(seed):
            yield found, whole(record)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_smaller_and_looks_the_same(tmp_path, extension, reduction):
    path = tmp_path / f"a.{extension}"
    image = cv2.GaussianBlur(render_scene(0, "train", 0).image, (0, 0), 8)[:200, :251]
    Image.fromarray(image).save(path)
    found = read_image(path, "RGB", reduction)
    if extension == "png":
        assert np.array_equal(found, image)
        return
    height, width = -(-200 // reduction), -(-251 // reduction)
    assert found.shape == (height, width, 3)
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("size", [(800, 1200), (1203, 805), (803, 1601)])
@pytest.mark.parametrize(
    "keys", [(), ("INPUT.LSJ.ENABLED", "True"), ("INPUT.MASK_FORMAT", "polygon")]
)
def test_the_model_is_given_the_same(tmp_path, small_opts, decoded_sizes, size, keys):
    opts = [*small_opts, *KEYS, "INPUT.LSJ.SIZE", "100", "INPUT.LSJ.MAX_SCALE", "1.5", *keys]
    record = photograph(tmp_path / "a.jpg", *size)
    if "polygon" in keys:
        record["annotations"] = record["annotations"][1:]
    for found, expected in with_and_without(opts, record, seeds=range(6)):
        assert max(decoded_sizes[-2]) < max(size) / 2 and decoded_sizes[-1] == size
        ours, theirs = found["instances"], expected["instances"]
        # A side may be rounded otherwise.
        height, width = (min(a, b) for a, b in zip(ours.image_size, theirs.image_size, strict=True))
        assert abs(np.subtract(ours.image_size, theirs.image_size)).max() <= 1
        assert len(ours) == len(theirs)
        assert (ours.gt_boxes.tensor - theirs.gt_boxes.tensor).abs().max() < 1.5
        pixels = [x["image"][:, :height, :width].int() for x in (found, expected)]
        assert (pixels[0] - pixels[1]).abs().float().mean() < 3
        if "polygon" not in keys:
            masks = [x.gt_masks.tensor[:, :height, :width] for x in (ours, theirs)]
            assert (masks[0] != masks[1]).float().mean() < 0.01
            # The bright object is where its mask says: RLE and polygons alike.
            is_bright = pixels[0].float().mean(dim=0) > 120
            for mask in masks[0]:
                assert (mask & is_bright).sum() / (mask | is_bright).sum() > 0.95


def test_masks_are_the_same_pixels_where_sizes_are(tmp_path, small_opts):
    record = photograph(tmp_path / "a.jpg", 800, 1200)
    ((reduced, whole),) = with_and_without([*small_opts, *KEYS], record)
    found, expected = reduced["instances"], whole["instances"]
    assert found.image_size == expected.image_size
    assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)


def test_a_photograph_that_is_stored_lying_stands(tmp_path, small_opts, decoded_sizes):
    record = photograph(tmp_path / "a.jpg", 1200, 800, orientation=6)
    result = mapper_of([*small_opts, *KEYS])(record)
    assert decoded_sizes == [(300, 200)]
    is_bright = result["image"].float().mean(dim=0) > 120
    for mask in result["instances"].gt_masks.tensor:
        assert (mask & is_bright).sum() / (mask | is_bright).sum() > 0.95


@pytest.mark.parametrize("size", [(160, 250), (199, 1000)])
def test_what_is_not_twice_as_large_is_as_ever(tmp_path, small_opts, decoded_sizes, size):
    """So also where only one side is."""
    opts = [*small_opts, *KEYS, "INPUT.MIN_SIZE_TRAIN", "(100,)", "INPUT.MAX_SIZE_TRAIN", "1000"]
    record = photograph(tmp_path / "a.jpg", *size)
    ((reduced, whole),) = with_and_without(opts, record)
    assert torch.equal(reduced["image"], whole["image"])
    assert decoded_sizes == [size, size]


def test_a_size_that_the_json_has_wrong_is_found(tmp_path, small_opts):
    record = photograph(tmp_path / "a.jpg", 800, 1200)
    mapper = mapper_of([*small_opts, *KEYS])
    with pytest.raises(UserError, match=r"a\.jpg has 1200 x 800 pixels, 1280 x 800 in the JSON"):
        mapper({**record, "width": 1280})


def test_crops_enlarge_so_that_both_are_refused(small_opts):
    cfg = load_small_config([*small_opts, *KEYS, "INPUT.CROP.ENABLED", "True"])
    with pytest.raises(UserError, match=r"INPUT\.REDUCED_DECODING does not go with INPUT\.CROP"):
        build_mapper(cfg, is_train=True)


@pytest.mark.parametrize(("aug", "sides"), [("True", (800, 1200)), ("False", (200, 300))])
def test_test_pictures_too_but_for_test_time_augmentation(
    tmp_path, small_opts, decoded_sizes, aug, sides
):
    """Which takes each of its sizes from the whole picture."""
    opts = [*small_opts, *KEYS, "TEST.AUG.ENABLED", aug, "INPUT.MIN_SIZE_TEST", "160"]
    cfg = load_small_config([*opts, "INPUT.MAX_SIZE_TEST", "400"])
    result = build_mapper(cfg, is_train=False)(photograph(tmp_path / "a.jpg", 800, 1200))
    assert decoded_sizes == [sides]
    assert (result["height"], result["width"]) == (800, 1200)
