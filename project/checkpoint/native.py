"""Detectron2's own names: checkpoints written by this project."""

from torch import Tensor

from project.checkpoint.weight_format import StateDict, WeightFormat

_PARTS = ("backbone.", "proposal_generator.", "roi_heads.")


def _recognises(state: StateDict) -> bool:
    return any(name.startswith(_PARTS) for name in state)


def _rename(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return dict(state)


NATIVE = WeightFormat(
    name="Detectron2",
    recognises=_recognises,
    rename=_rename,
    # Detectron2 keeps them out of new checkpoints.
    may_be_left={
        "pixel_mean": "from the config",
        "pixel_std": "from the config",
        "proposal_generator.anchor_generator.": "from the config",
    },
)
