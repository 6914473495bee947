"""Resizing and flipping by OpenCV: the same sizes, coordinates and masks; pictures as asked for."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from project.data.synthetic import render_scene
from project.data.transforms import HFlipTransform, ResizeTransform, WithOpenCV

SIDES = st.integers(1, 200)


def transform_of(
    image: np.ndarray, short_edge: int, max_size: int, backend="opencv"
) -> T.Transform:
    return WithOpenCV(T.ResizeShortestEdge(short_edge, max_size), backend).get_transform(image)


@pytest.mark.parametrize(("short_edge", "max_size"), [(100, 1000), (200, 210), (400, 1000)])
def test_pixels_are_the_backends_and_sizes_and_coordinates_detectron2s(short_edge, max_size):
    image = render_scene(0, "train", 0).image
    stock = T.ResizeShortestEdge(short_edge, max_size).get_transform(image)
    ours = transform_of(image, short_edge, max_size)
    size = (ours.new_w, ours.new_h)
    assert size == (stock.new_w, stock.new_h)
    expected = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(ours.apply_image(image), expected)
    pillow = transform_of(image, short_edge, max_size, "pillow")
    assert np.array_equal(pillow.apply_image(image), stock.apply_image(image))
    points = np.array([[3.0, 5.0], [100.5, 20.25]])
    assert np.array_equal(ours.apply_coords(points.copy()), stock.apply_coords(points.copy()))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3)])
def test_any_kind_of_picture(dtype, shape):
    image = np.ones(shape, dtype=dtype)
    resized = transform_of(image, 20, 100).apply_image(image)
    assert resized.shape == (20, 30, *shape[2:]) and resized.dtype == dtype
    assert (resized == 1).all()
    assert HFlipTransform(60).apply_image(image).shape == shape


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_resized_masks_are_pillows(height, width, new_height, new_width, seed):
    random = np.random.default_rng(seed)
    mask = (random.random((height, width)) < 0.5).astype(np.uint8)
    mask[: random.integers(height + 1)] = 0
    mask[:, random.integers(width + 1) :] = 0
    expected = Image.fromarray(mask).resize((new_width, new_height), Image.Resampling.NEAREST)
    resize = ResizeTransform(height, width, new_height, new_width, "opencv")
    assert np.array_equal(resize.apply_segmentation(mask), np.asarray(expected))


@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_flipped_pixels_are_detectron2s(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for pixels in (image, image[..., 0]):
        expected = T.HFlipTransform(width).apply_image(pixels)
        assert np.array_equal(HFlipTransform(width).apply_image(pixels), expected)


def test_the_inverse_leads_back():
    image = render_scene(0, "train", 0).image
    there = transform_of(image, 100, 1000)
    back = there.inverse()
    assert back.apply_image(there.apply_image(image)).shape == image.shape
    points = np.array([[3.0, 5.0]])
    assert np.allclose(back.apply_coords(there.apply_coords(points.copy())), points)
