"""A file in float16: every layer that should be is, and it finds nearly the same."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from project.data.reading import read_image
from project.evaluation.coco_results import to_coco_results
from project.export.checking import share_kept
from project.export.half_precision import _convert, convert_to_half
from project.runtime import load


@pytest.fixture(scope="module")
def converted(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    shutil.copy(exported, path)
    return path, convert_to_half(path)


def test_layers_are_in_float16_but_for_the_last_ones(converted):
    path, number = converted
    graph = onnx.load(str(path)).graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    in_half = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        is_last = any(x in node.name for x in ("objectness", "anchor_deltas", "predictor"))
        expected = TensorProto.FLOAT if is_last else TensorProto.FLOAT16
        # Equal weights are one tensor, which the others are made of.
        made = {name: expected for name in node.input[1:] if name.endswith("/half") != is_last}
        assert {(made | weights).get(name) for name in node.input[1:]} == {expected}, node.name
        in_half += not is_last
    assert in_half == number > 60
    onnx.checker.check_model(str(path))


def test_it_is_half_as_large_and_finds_nearly_the_same(converted, exported, generated_root):
    path, _ = converted
    assert path.stat().st_size < 0.6 * exported.stat().st_size
    half, full = load(path), load(exported)
    assert half.metadata == {**full.metadata, "precision": "float16"}
    pictures = [read_image(file) for file in sorted((generated_root / "test_images").iterdir())]
    share, number = share_kept(full, half, pictures, score=full.score_threshold)
    assert share > 0.95 and number > 50
    scores = [np.sort(detector(pictures[0]).scores)[::-1][:5] for detector in (half, full)]
    assert np.allclose(*scores, atol=0.01) and not np.array_equal(*scores)
    assert to_coco_results(half(pictures[0]), 0)[0].keys() == {
        *("image_id", "category_id", "bbox", "score", "segmentation")
    }


def test_tensors_that_others_read_stay_in_float32():
    """A branch, an output and a size read what a layer makes; a branch reads its weights too."""
    weight = np.random.RandomState(0).rand(2, 2, 3, 3).astype(np.float32)

    def value(name: str, dtype: int = TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, dtype, None)

    branches = {
        key: helper.make_graph([helper.make_node(op, ["b", "w"], ["r"])], key, [], [value("r")])
        for key, op in (("then_branch", "Conv"), ("else_branch", "Add"))
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="layer", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Mul", ["b", "y"], ["c"]),  # y is no feature
        helper.make_node("Add", ["a", "b"], ["d"]),
        helper.make_node("Shape", ["d"], ["e"]),
        helper.make_node("If", ["yes"], ["f"], **branches),
        helper.make_node("Conv", ["d", "w"], ["g"], name="predictor"),
    ]
    inputs = [value("x"), value("y"), value("yes", TensorProto.BOOL)]
    outputs = [value("b"), value("c"), value("e", TensorProto.INT64), value("f"), value("g")]
    graph = helper.make_graph(
        nodes, "graph", inputs, outputs, [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.RandomState(1).rand(1, 2, 5, 6).astype(np.float32)
    feed = {"x": x, "y": np.array(3, np.float32), "yes": np.array(True)}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    assert _convert(model.graph) == 1
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == [*("Cast", "Conv", "Relu", "Cast", "Mul", "Add", "Cast", "Shape", "If", "Conv")]
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a, b, rtol=3e-3)
