"""Resizing with Pillow or OpenCV: the same sizes and coordinates, other pixels."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from project.config import get_project_cfg
from project.data.augmentation import OpenCVResizeShortestEdge, build_mapper
from project.data.synthetic import render_scene
from project.errors import UserError


def transform_of(image: np.ndarray, short_edge: int, max_size: int) -> T.Transform:
    return OpenCVResizeShortestEdge(short_edge, max_size).get_transform(image)


@pytest.mark.parametrize(("short_edge", "max_size"), [(100, 1000), (200, 210), (400, 1000)])
def test_pixels_are_opencvs_and_sizes_and_coordinates_detectron2s(short_edge, max_size):
    image = render_scene(0, "train", 0).image
    stock = T.ResizeShortestEdge(short_edge, max_size).get_transform(image)
    ours = transform_of(image, short_edge, max_size)
    size = (ours.new_w, ours.new_h)
    assert size == (stock.new_w, stock.new_h)
    expected = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(ours.apply_image(image), expected)
    points = np.array([[3.0, 5.0], [100.5, 20.25]])
    assert np.array_equal(ours.apply_coords(points.copy()), stock.apply_coords(points.copy()))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3)])
def test_any_kind_of_picture(dtype, shape):
    image = np.ones(shape, dtype=dtype)
    resized = transform_of(image, 20, 100).apply_image(image)
    assert resized.shape == (20, 30, *shape[2:]) and resized.dtype == dtype
    assert (resized == 1).all()


def test_masks_stay_masks_and_centred():
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[16:48, 16:48] = 1
    small = transform_of(mask, 32, 100).apply_segmentation(mask)
    assert np.array_equal(np.argwhere(small).min(axis=0), [8, 8]) and small.sum() == 16 * 16
    assert np.array_equal(small, small[::-1, ::-1])


def test_the_inverse_leads_back():
    image = render_scene(0, "train", 0).image
    there = transform_of(image, 100, 1000)
    back = there.inverse()
    assert back.apply_image(there.apply_image(image)).shape == image.shape
    points = np.array([[3.0, 5.0]])
    assert np.allclose(back.apply_coords(there.apply_coords(points.copy())), points)


def test_the_config_chooses():
    cfg = get_project_cfg()
    cfg.INPUT.CROP.ENABLED = True
    kinds = {}
    for backend in ("pillow", "opencv"):
        cfg.INPUT.RESIZE_BACKEND = backend
        kinds[backend] = [type(a) for a in build_mapper(cfg, is_train=True).augmentations.augs]
    assert kinds["pillow"] == [T.RandomCrop, T.ResizeShortestEdge, T.RandomFlip]
    assert kinds["opencv"] == [T.RandomCrop, OpenCVResizeShortestEdge, T.RandomFlip]
    assert [type(a) for a in build_mapper(cfg, is_train=False).augmentations.augs] == [
        OpenCVResizeShortestEdge
    ]
    cfg.INPUT.RESIZE_BACKEND = "pil"
    with pytest.raises(UserError, match="choose one of pillow, opencv"):
        build_mapper(cfg, is_train=True)
