"""Which layers of an exported detector may compute with less precision."""

from onnx import NodeProto

# Parts of their names. What these layers give are scores, boxes and masks.
_LAST_LAYERS = ("objectness_logits", "anchor_deltas", "predictor")


def is_last_layer(node: NodeProto) -> bool:
    """Whether it stays in float32."""
    return any(part in node.name for part in _LAST_LAYERS)
