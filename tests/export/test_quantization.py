"""A file in int8: every layer that should be is, and it still finds objects."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from project.data.reading import read_image
from project.export.checking import share_kept
from project.export.quantization import _Pictures, quantize
from project.runtime import load
from tests.export.test_export_model import some_detections


@pytest.fixture(scope="module")
def pictures(generated_root) -> list[np.ndarray]:
    return [read_image(file) for file in sorted((generated_root / "test_images").iterdir())]


@pytest.fixture(scope="module")
def quantized(exported, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    shutil.copy(exported, path)
    number = quantize(path, pictures[:3])
    return path, number


def test_layers_are_in_int8_with_their_biases_but_for_the_last_ones(quantized):
    path, number = quantized
    graph = onnx.load(str(path)).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    in_int8 = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        inputs = [makers.get(name) for name in node.input[1:]]
        is_last = any(x in node.name for x in ("objectness", "anchor_deltas", "predictor"))
        # With one input in float32, onnxruntime computes in it.
        is_quantized = set(inputs) == {"DequantizeLinear"}
        assert is_quantized != is_last and is_last == ("DequantizeLinear" not in inputs), node.name
        in_int8 += is_quantized
    assert in_int8 == number > 60


def test_it_is_small_and_says_what_it_is(quantized, exported, pictures):
    path, _ = quantized
    assert path.stat().st_size < 0.4 * exported.stat().st_size
    detector = load(path)
    assert detector.metadata == {**load(exported).metadata, "precision": "int8"}
    assert len(detector(pictures[0])) > 0


def test_the_calibration_pastes_no_masks(exported, pictures):
    reader = _Pictures(pictures[:2], {"image", "score_threshold", "paste_masks"})
    session = onnxruntime.InferenceSession(str(exported))
    for picture in pictures[:2]:
        feed = reader.get_next()
        assert np.array_equal(feed["image"], picture)
        probabilities, masks = session.run(["mask_probabilities", "masks"], feed)
        assert len(probabilities) > 0 and masks.size == 0
    assert reader.get_next() is None
    # A model without masks has no such input.
    assert _Pictures(pictures, {"image", "score_threshold"}).get_next().keys() == {
        "image",
        "score_threshold",
    }


def test_the_share_counts_objects_of_the_same_class_and_place():
    whole = some_detections()  # scores of .9, .7, .5 and .3
    picture = np.zeros((1, 1, 3), dtype=np.uint8)

    def share(found, score=0.4):
        return share_kept(lambda _: whole, lambda _: found, [picture], score)

    assert share(whole) == (1.0, 3)
    assert share(whole[1:]) == (pytest.approx(2 / 3), 3)
    other_class = type(whole)(**{**vars(whole), "category_ids": whole.category_ids[::-1]})
    assert share(other_class) == (0.0, 3)
    moved = type(whole)(**{**vars(whole), "boxes_xyxy": whole.boxes_xyxy + 20})
    assert share(moved) == (0.0, 3)
    nothing_to_find, number = share(whole, score=0.95)
    assert np.isnan(nothing_to_find) and number == 0
