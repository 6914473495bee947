"""The mapper against Detectron2's, and masks that are the same pixels however they are said."""

import copy

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from project.benchmark.data import near_boundary
from project.data.augmentation import build_augmentations
from project.data.mapper import InstanceMapper, build_mapper, mask_boxes
from project.data.segmentation import compressed_rle, decode_segmentation, polygons
from project.data.transforms import WithOpenCV
from project.errors import UserError
from project.seeding import seeded
from tests.helpers import load_small_config

HEIGHT, WIDTH = 40, 50


@pytest.fixture(scope="module")
def picture_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    return path


def annotation(segmentation, bbox=(0, 0, WIDTH, HEIGHT), category=0, iscrowd=0) -> dict:
    return {
        "segmentation": segmentation,
        "bbox": list(bbox),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": iscrowd,
    }


def record_of(path, *annotations: dict) -> dict:
    size = {"height": HEIGHT, "width": WIDTH}
    return {"file_name": str(path), "image_id": 3, **size, "annotations": list(annotations)}


def mapper_with(*augmentations, mask_format="bitmask", **options) -> InstanceMapper:
    return InstanceMapper(
        augmentations, is_train=True, image_format="RGB", mask_format=mask_format, **options
    )


def stock_mapper(cfg) -> DatasetMapper:
    """Detectron2's; where OpenCV resizes, with this project's augmentations."""
    arguments = DatasetMapper.from_config(cfg, is_train=True)
    if cfg.INPUT.RESIZE_BACKEND == "opencv":
        arguments["augmentations"] = build_augmentations(cfg, is_train=True)
    return DatasetMapper(**arguments)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("backend", ["pillow", "opencv"])
def test_it_gives_what_detectron2s_mapper_gives(small_opts, backend, crop):
    """All equal, but for polygons, which Detectron2 transforms before it rasterises them."""
    opts = [*small_opts, "INPUT.RESIZE_BACKEND", backend, "INPUT.CROP.ENABLED", str(crop)]
    cfg = load_small_config([*opts, "INPUT.MIN_SIZE_TRAIN", "(150, 300)"])
    stock, ours = stock_mapper(cfg), build_mapper(cfg, is_train=True)
    kinds = set()
    for number, record in enumerate(DatasetCatalog.get("tiny_voc_train")):
        for item in record["annotations"]:
            if crop and isinstance(item["segmentation"], list):  # for which Detectron2 has no crop
                mask = decode_segmentation(item["segmentation"], record["height"], record["width"])
                item["segmentation"] = compressed_rle(mask)
        with seeded(number):
            expected = stock(record)
        with seeded(number):
            found = ours(record)
        theirs, mine = expected.pop("instances"), found.pop("instances")
        assert torch.equal(found.pop("image"), expected.pop("image"))
        assert found == expected
        assert mine.image_size == theirs.image_size
        assert torch.equal(mine.gt_classes, theirs.gt_classes)
        assert torch.equal(mine.gt_boxes.tensor, theirs.gt_boxes.tensor)
        masks, others = mine.gt_masks.tensor.numpy(), theirs.gt_masks.tensor.numpy().astype(bool)
        if crop:
            kinds.add(dict)
            assert np.array_equal(masks, others)
            continue
        said = [a["segmentation"] for a in record["annotations"] if not a["iscrowd"]]
        for segmentation, mask, other in zip(said, masks, others, strict=True):
            kinds.add(type(segmentation))
            differs = mask != other
            if isinstance(segmentation, list):
                differs &= ~near_boundary(other, 2)
            assert not differs.any()
    assert kinds == ({dict} if crop else {list, dict})


def test_boxes_in_whole_pixels_are_not_rounded_when_resized(picture_file):
    """Detectron2's ``apply_box`` works in the dtype that it is given."""
    said = annotation(compressed_rle(square(1, 1, 9)), (1, 1, 9, 9))
    mapper = mapper_with(T.ResizeTransform(HEIGHT, WIDTH, HEIGHT // 4, WIDTH // 4))
    instances = mapper(record_of(picture_file, said))["instances"]
    scale = (WIDTH // 4) / WIDTH
    expected = [[scale, 0.25, 10 * scale, 2.5]]
    assert torch.allclose(instances.gt_boxes.tensor, torch.tensor(expected))


MASKS = arrays(np.bool_, (HEIGHT, WIDTH), elements=st.booleans(), fill=st.just(False)).filter(
    np.any
)
FLIP = T.HFlipTransform(WIDTH)


@st.composite
def crops(draw) -> T.CropTransform:
    x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    return T.CropTransform(
        x, y, draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y)), WIDTH, HEIGHT
    )


@st.composite
def segmentations(draw):
    """A segmentation as people's tools write it, on no pixel grid or on one, and its pixels."""
    if draw(st.booleans()):
        mask = draw(MASKS)
        return compressed_rle(mask), mask
    coordinates = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))
    points = draw(st.lists(st.lists(coordinates, min_size=3, max_size=6), min_size=1, max_size=3))
    said = [[value for point in ring for value in point] for ring in points]
    mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(said, HEIGHT, WIDTH)))
    return said, mask.astype(bool)


@given(segmentations(), crops(), st.booleans(), st.booleans())
def test_flips_and_crops_commute_with_rasterising(picture_file, said, crop, flips, vertical):
    segmentation, mask = said
    transforms = [
        *([FLIP] if flips else []),
        *([T.VFlipTransform(HEIGHT)] if vertical else []),
        crop,
    ]
    mapper = mapper_with(*transforms, boxes_from_masks=True)
    instances = mapper(record_of(picture_file, annotation(segmentation)))["instances"]
    expected = mask[:, ::-1] if flips else mask
    expected = expected[::-1] if vertical else expected
    expected = expected[crop.y0 : crop.y0 + crop.h, crop.x0 : crop.x0 + crop.w]
    assert len(instances) == expected.any()
    if expected.any():
        assert np.array_equal(instances.gt_masks.tensor[0].numpy(), expected)
        rows, columns = np.nonzero(expected)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert instances.gt_boxes.tensor.tolist() == [box]


@given(MASKS, st.integers(1, 100), st.integers(1, 100))
def test_polygons_and_rle_of_a_mask_are_one_mask_at_any_size(picture_file, mask, height, width):
    ways = [compressed_rle(mask), polygons(mask)]
    said = [annotation(way) for way in ways if way is not None]
    mapper = mapper_with(T.ResizeTransform(HEIGHT, WIDTH, height, width))
    masks = mapper(record_of(picture_file, *said))["instances"].gt_masks.tensor
    assert all(torch.equal(masks[0], other) for other in masks[1:])


def test_other_transforms_change_masks_too(picture_file):
    """After a resize, which chooses pixels, a rotation, which does not."""
    mask = square(5, 5, 12)
    resize = T.ResizeTransform(HEIGHT, WIDTH, 2 * HEIGHT, 2 * WIDTH)
    rotation = T.RotationTransform(2 * HEIGHT, 2 * WIDTH, 30, expand=False)
    mapper = mapper_with(resize, rotation)
    masks = mapper(record_of(picture_file, annotation(compressed_rle(mask))))["instances"].gt_masks
    expected = rotation.apply_segmentation(resize.apply_segmentation(mask.view(np.uint8)))
    assert np.array_equal(masks.tensor[0].numpy(), expected)


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_crowds_and_what_a_crop_leaves_out_do_not_train(picture_file):
    whole, left_out, crowd = square(2, 2, 8), square(30, 30, 5), square(5, 5, 20)
    record = record_of(
        picture_file,
        annotation(compressed_rle(left_out), (30, 30, 5, 5), category=1),
        annotation(compressed_rle(crowd), (5, 5, 20, 20), category=2, iscrowd=1),
        annotation(compressed_rle(whole), (2, 2, 8, 8), category=3),
    )
    before = copy.deepcopy(record)
    result = mapper_with(T.CropTransform(0, 0, 20, 20, WIDTH, HEIGHT))(record)
    assert record == before
    assert "annotations" not in result and result["image_id"] == 3
    assert result["image"].shape == (3, 20, 20) and result["image"].dtype == torch.uint8
    instances = result["instances"]
    assert instances.gt_classes.tolist() == [3]
    assert instances.gt_boxes.tensor.tolist() == [[2, 2, 10, 10]]
    assert np.array_equal(instances.gt_masks.tensor[0].numpy(), whole[:20, :20])


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon", None])
def test_a_picture_without_objects_is_a_negative(picture_file, mask_format):
    instances = mapper_with(mask_format=mask_format)(record_of(picture_file))["instances"]
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.has("gt_masks") is (mask_format == "bitmask")


def test_boxes_without_masks(picture_file):
    said = annotation(compressed_rle(square(2, 2, 8)), (2, 2, 8, 8))
    instances = mapper_with(FLIP, mask_format=None)(record_of(picture_file, said))["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[WIDTH - 10, 2, WIDTH - 2, 10]]
    assert not instances.has("gt_masks")


def test_polygons_stay_polygons_where_they_are_asked_for(picture_file):
    said = annotation([[2.0, 2.0, 10.5, 2.0, 10.5, 9.0]], (2, 2, 8.5, 7))
    mapper = mapper_with(FLIP, mask_format="polygon")
    record = record_of(picture_file, said)
    instances = mapper(record)["instances"]
    assert instances.gt_masks.polygons[0][0].tolist() == [48, 2, 39.5, 2, 39.5, 9]
    assert instances.gt_boxes.tensor.tolist() == [[39.5, 2, 48, 9]]
    assert record["annotations"] == [said]


def test_whole_numbers_of_polygons_are_resized_to_fractions(picture_file):
    said = annotation([[3, 3, 11, 3, 11, 9]], (3, 3, 8, 6))
    resize = WithOpenCV(T.ResizeShortestEdge(30, 100), "opencv")  # to 38 x 30
    mapper = mapper_with(resize, mask_format="polygon")
    instances = mapper(record_of(picture_file, said))["instances"]
    expected = [2.28, 2.25, 8.36, 2.25, 8.36, 6.75]
    assert instances.gt_masks.polygons[0][0] == pytest.approx(expected)


def test_in_evaluation_there_are_no_instances(picture_file):
    mapper = InstanceMapper([], is_train=False, image_format="RGB", mask_format="bitmask")
    result = mapper(record_of(picture_file, annotation(compressed_rle(square(2, 2, 8)))))
    assert set(result) == {"file_name", "image_id", "height", "width", "image"}


def test_a_picture_of_another_size_is_named(picture_file):
    record = {**record_of(picture_file), "height": 41}
    with pytest.raises(UserError, match=r"a\.jpg has 50 x 40 pixels, 50 x 41 in the JSON"):
        mapper_with()(record)


def test_a_picture_of_which_nothing_would_be_left_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((1, 50, 3), np.uint8))
    record = {**record_of(tmp_path / "b.png"), "height": 1}
    resize = WithOpenCV(T.ResizeShortestEdge(20, 24), "opencv")
    with pytest.raises(UserError, match=r"b\.png: a picture of 50 x 1 pixels is too narrow"):
        mapper_with(resize)(record)


@given(arrays(np.bool_, st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9))))
def test_boxes_of_masks_are_detectron2s(masks):
    expected = BitMasks(torch.from_numpy(masks)).get_bounding_boxes().tensor.numpy()
    assert np.array_equal(mask_boxes(masks), expected)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("INPUT.COPY_PASTE.PROBABILITY", "1.5"), "a number from 0 to 1"),
        (("INPUT.COPY_PASTE.PROBABILITY", "0.5", "INPUT.MASK_FORMAT", "polygon"), "bitmask"),
        (("INPUT.COPY_PASTE.PROBABILITY", "0.5", "MODEL.MASK_ON", "False"), "MODEL.MASK_ON True"),
        (("INPUT.CROP.ENABLED", "True", "INPUT.MASK_FORMAT", "polygon"), "MASK_FORMAT bitmask"),
        (("INPUT.LSJ.ENABLED", "True", "INPUT.MASK_FORMAT", "polygon"), "MASK_FORMAT bitmask"),
        (("INPUT.MASK_FORMAT", "rle"), "choose one of bitmask, polygon"),
    ],
)
def test_what_needs_bit_masks_says_so(small_opts, pairs, message):
    with pytest.raises(UserError, match=message):
        build_mapper(load_small_config([*small_opts, *pairs]), is_train=True)
