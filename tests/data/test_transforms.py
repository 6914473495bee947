"""Resizing and flipping by OpenCV: the same sizes, coordinates and masks; pictures as asked for."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st

from project.data.partial_decoding import decode_segmentation_at
from project.data.segmentation import compressed_rle, uncompressed_rle
from project.data.synthetic import render_scene
from project.data.transforms import HFlipTransform, ResizeTransform, WithOpenCV, index_maps

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


@st.composite
def chains(draw, height: int, width: int) -> list[T.Transform]:
    """What augmentations do to a picture, in any order."""
    transforms = []
    for kind in draw(
        st.lists(st.sampled_from(["size", "crop", "flip", "flop", "colors"]), max_size=4)
    ):
        if kind == "size":
            size = draw(SIDES), draw(SIDES)
            transforms.append(ResizeTransform(height, width, *size, "opencv"))
            height, width = size
        elif kind == "crop":
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            size = draw(st.integers(1, height - top)), draw(st.integers(1, width - left))
            transforms.append(T.CropTransform(left, top, size[1], size[0], width, height))
            height, width = size
        else:
            flips = {"flip": HFlipTransform(width), "flop": T.VFlipTransform(height)}
            transforms.append(flips.get(kind, T.ColorTransform(np.invert)))
    return transforms


@given(st.data(), SIDES, SIDES, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_masks_are_those_of_detectron2s_transforms(data, height, width, density, seed):
    """Pillow resizes them there. Of an RLE, only the pixels that are left are decoded."""
    random = np.random.default_rng(seed)
    mask = random.random((height, width)) < density
    mask[: random.integers(height + 1)] = 0
    mask[:, random.integers(width + 1) :] = 0
    transforms = data.draw(chains(height, width))
    expected = T.TransformList(transforms).apply_segmentation(mask.view(np.uint8))
    rows, columns, others = index_maps(transforms, height, width)
    assert others == []
    assert np.array_equal(mask[rows][:, columns], expected)
    for rle in (compressed_rle(mask), uncompressed_rle(mask)):
        found = decode_segmentation_at(rle, height, width, rows, columns)
        assert found.dtype == bool and np.array_equal(found, expected)


def test_what_follows_a_transform_that_chooses_no_pixels_is_left_to_do():
    rotation = T.RotationTransform(20, 30, 45)
    flip = HFlipTransform(30)
    rows, columns, others = index_maps([flip, rotation, flip], 20, 30)
    assert others == [rotation, flip]
    assert rows.tolist() == list(range(20)) and columns.tolist() == list(range(29, -1, -1))


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
