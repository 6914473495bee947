"""timm's names: an ImageNet classifier of which a detector takes the body."""

from torch import Tensor

from project.checkpoint.weight_format import BODY_PREFIX, StateDict, WeightFormat

_HEADS = ("fc.", "classifier.", "head.", "head_", "conv_head.", "bn2.", "norm.", "norm_head.")


def _rename(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return {BODY_PREFIX + _flattened(name, model_names): tensor for name, tensor in state.items()}


def _flattened(name: str, model_names: set[str]) -> str:
    """timm's ``features_only`` calls "stages.0.x" "stages_0.x" in some families."""
    if BODY_PREFIX + name in model_names:
        return name
    flattened = name.replace(".", "_", 1)
    return flattened if BODY_PREFIX + flattened in model_names else name


TIMM_BODY = WeightFormat(
    name="timm classifier",
    recognises=lambda state: True,
    rename=_rename,
    scope=BODY_PREFIX,
    may_be_left={BODY_PREFIX + head: "classification head" for head in _HEADS},
)
