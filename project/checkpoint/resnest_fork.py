"""Names of the ResNeSt authors' fork of Detectron2 (github.com/zhanghang1989/detectron2-ResNeSt).

Its detectors are named as Detectron2's but for the body, of which it also has ImageNet weights.
Source: detectron2/modeling/backbone/resnet.py and splat.py there.
"""

from torch import Tensor

from project.checkpoint.name_table import NameTable
from project.checkpoint.native import NATIVE
from project.checkpoint.weight_format import BODY_PREFIX, StateDict, WeightFormat

_DETECTOR_PREFIX = "backbone.bottom_up."

FORK_NAMES = NameTable(
    {
        "stem.conv1_1": f"{BODY_PREFIX}conv1.0",
        "stem.conv1_1.norm": f"{BODY_PREFIX}conv1.1",
        "stem.conv1_2": f"{BODY_PREFIX}conv1.3",
        "stem.conv1_2.norm": f"{BODY_PREFIX}conv1.4",
        "stem.conv1_3": f"{BODY_PREFIX}conv1.6",
        "stem.conv1_3.norm": f"{BODY_PREFIX}bn1",
        **{
            f"res{stage + 1}.*.{theirs}": f"{BODY_PREFIX}layer{stage}.*.{ours}"
            for stage in range(1, 5)
            for theirs, ours in (
                ("conv1", "conv1"),
                ("conv1.norm", "bn1"),
                ("conv2", "conv2"),
                ("conv3", "conv3"),
                ("conv3.norm", "bn3"),
                ("shortcut", "downsample.1"),
                ("shortcut.norm", "downsample.2"),
            )
        },
    }
)


def _rename_detector(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return {
        FORK_NAMES.to_ours(name.removeprefix(_DETECTOR_PREFIX)) or name: tensor
        for name, tensor in state.items()
    }


def _rename_body(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return {FORK_NAMES.to_ours(name) or BODY_PREFIX + name: t for name, t in state.items()}


RESNEST_FORK = WeightFormat(
    name="ResNeSt's fork of Detectron2",
    recognises=lambda state: f"{_DETECTOR_PREFIX}stem.conv1_1.weight" in state,
    rename=_rename_detector,
    may_be_left=NATIVE.may_be_left,
)

RESNEST_FORK_BODY = WeightFormat(
    name="ResNeSt's fork of Detectron2, ImageNet",
    recognises=lambda state: "stem.conv1_1.weight" in state,
    rename=_rename_body,
    scope=BODY_PREFIX,
    may_be_left={
        f"{BODY_PREFIX}fc.": "classification head",
        f"{BODY_PREFIX}linear.": "classification head",
    },
)
