"""A detector whose layers compute in float16."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from project.export.layers import is_last_layer
from project.runtime.detector import PRECISION

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
# What may lie between two layers; in float16 where all that it takes is.
_BETWEEN = (
    *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Flatten"),
    *("GlobalAveragePool", "HardSigmoid", "HardSwish", "MaxPool", "Mul", "Pad", "ReduceMean"),
    *("Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Sub", "Transpose", "Unsqueeze"),
)
# By position; other inputs are sizes. Else: all.
_FLOAT_INPUTS = {"Pad": (0, 2), "Reshape": (0,), "Resize": (0,), "Slice": (0,), "Unsqueeze": (0,)}
_HALF = "/half"  # follows the name of a tensor in float16


def convert_to_half(path: Path) -> int:
    """Let layers of a file of :func:`project.export.onnx_file.export_onnx` compute in float16.

    Their weights are kept in float16, which halves the file. What makes scores, boxes and masks
    stays in float32, as do sizes, proposals, RoIAlign and NMS.

    Args:
        path: of the file, which is replaced.

    Returns:
        How many layers are in float16.
    """
    model = onnx.load(str(path))
    number = _convert(model.graph)
    for entry in model.metadata_props:
        if entry.key == PRECISION:
            entry.value = "float16"
    unfinished = path.with_name(f"{path.name}.part")
    try:
        onnx.save(model, str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return number


def _convert(graph: GraphProto) -> int:
    chosen = _nodes_in_half(graph)
    in_half = [node for index, node in enumerate(graph.node) if index in chosen]
    others = [node for index, node in enumerate(graph.node) if index not in chosen]
    wanted = {node.input[i] for node in in_half for i in _float_inputs(node)}
    made = {name for node in in_half for name in node.output}
    in_float = {name for node in _with_branches(others) for name in node.input}
    for node in in_half:
        in_float.update(x for i, x in enumerate(node.input) if i not in _float_inputs(node))
    in_float.update(entry.name for entry in graph.output)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.name in wanted}
    for name, tensor in weights.items():
        values = numpy_helper.to_array(tensor).astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(values, name + _HALF))
        if name not in in_float:
            graph.initializer.remove(tensor)
    to_cast = wanted - made - weights.keys()
    given = [entry.name for entry in graph.input if entry.name in to_cast]
    nodes = [_cast(x, x + _HALF, TensorProto.FLOAT16) for x in given]
    for index, node in enumerate(graph.node):
        nodes.append(node)
        outputs = list(node.output)
        if index in chosen:
            for i in _float_inputs(node):
                node.input[i] += _HALF
            node.output[:] = [x + _HALF for x in outputs]
            nodes += [_cast(x + _HALF, x, TensorProto.FLOAT) for x in outputs if x in in_float]
        else:
            nodes += [_cast(x, x + _HALF, TensorProto.FLOAT16) for x in outputs if x in to_cast]
    del graph.node[:]
    graph.node.extend(nodes)
    return sum(node.op_type in _LAYERS for node in in_half)


def _nodes_in_half(graph: GraphProto) -> set[int]:
    """The numbers of the layers, and of what lies between them."""
    constants = {tensor.name for tensor in graph.initializer}
    inside, chosen = set(), set()
    for index, node in enumerate(graph.node):
        if node.op_type in ("Constant", "Identity") and constants.issuperset(node.input):
            constants.update(node.output)
        varying = {node.input[i] for i in _float_inputs(node)} - constants
        is_between = node.op_type in _BETWEEN and varying and varying <= inside
        if is_between or (node.op_type in _LAYERS and not is_last_layer(node)):
            inside.update(node.output)
            chosen.add(index)
    return chosen


def _float_inputs(node: NodeProto) -> list[int]:
    """The positions of inputs that have the dtype of the output."""
    positions = _FLOAT_INPUTS.get(node.op_type, range(len(node.input)))
    return [i for i in positions if i < len(node.input) and node.input[i]]


def _with_branches(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of their branches, which see the same tensors."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _with_branches(attribute.g.node)


def _cast(source: str, target: str, dtype: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=dtype)
