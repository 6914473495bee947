"""The graph's resizing gives the bytes of the software whose arithmetic it repeats."""

import warnings

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from project.export.resizing import output_size, resize_as_opencv, resize_as_pillow

MIN_SIZE, MAX_SIZE = 96, 150

SIDES = st.integers(8, 400)


def with_opencv(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def with_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


class Resized(torch.nn.Module):
    def __init__(self, resize):
        super().__init__()
        self.resize = resize

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.resize(image, output_size(image, MIN_SIZE, MAX_SIZE))


@pytest.fixture(
    scope="module",
    params=[(resize_as_opencv, with_opencv), (resize_as_pillow, with_pillow)],
    ids=["opencv", "pillow"],
)
def resizers(request, tmp_path_factory):
    """The module, the same as an ONNX graph, and what they must be equal to."""
    resize, expected = request.param
    module = Resized(resize)
    path = tmp_path_factory.mktemp("resize") / "resize.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(60, 80, 3, dtype=torch.uint8),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["resized"],
            dynamic_axes={"image": [0, 1], "resized": [0, 1]},
        )
    return module, onnxruntime.InferenceSession(str(path)), expected


@settings(max_examples=60)
@given(height=SIDES, width=SIDES)
@example(height=96, width=96)  # nothing to do
@example(height=192, width=192)  # half, for which OpenCV has an own routine
@example(height=400, width=90)  # where Pillow begins with y
@example(height=152, width=39)  # where it does not, though twice as high as wide
@example(height=48, width=61)  # larger
def test_every_byte_is_equal(resizers, height, width):
    module, session, resize = resizers
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    size = ResizeShortestEdge.get_output_shape(height, width, MIN_SIZE, MAX_SIZE)
    expected = resize(image, *size)
    assert np.array_equal(module(torch.from_numpy(image)).numpy(), expected)
    assert np.array_equal(session.run(None, {"image": image})[0], expected)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_the_size_is_that_of_detectron2(height, width):
    image = torch.empty(height, width, 0)
    size = output_size(image, 800, 1333)
    assert tuple(size.tolist()) == ResizeShortestEdge.get_output_shape(height, width, 800, 1333)
    assert output_size(image, 0, 1333).tolist() == [height, width]
