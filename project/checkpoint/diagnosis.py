"""Why a detector's weights do not fit, and which config key makes them fit."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from project.checkpoint.weight_format import BODY_PREFIX

# Blocks of layer1..layer4 -> timm's name.
_RESNESTS = {
    (3, 4, 6, 3): "resnest50d",
    (3, 4, 23, 3): "resnest101e",
    (3, 24, 36, 3): "resnest200e",
    (3, 30, 48, 8): "resnest269e",
}


def config_hints(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """What to set in the config for ``theirs`` to fit, one sentence for each cause that is seen.

    Args:
        theirs: tensors of the file, under our names.
        ours: the model's state dict.
    """
    found = [
        _body_hint(_blocks(theirs), _blocks(ours)),
        _class_hint(_num_classes(theirs), _num_classes(ours)),
        _count_hint(
            "mask heads", "MODEL.ROI_MASK_HEAD.NUM_HEADS", *_counts("mask_head", theirs, ours)
        ),
        _count_hint(
            "cascade stages", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", *_counts("box_head", theirs, ours)
        ),
        *(
            _norm_hint(part, key, prefix, theirs, ours)
            for part, key, prefix in (
                ("FPN", "MODEL.FPN.NORM", "backbone.fpn_"),
                ("box heads", "MODEL.ROI_BOX_HEAD.NORM", "roi_heads.box_head."),
                ("mask heads", "MODEL.ROI_MASK_HEAD.NORM", "roi_heads.mask_head."),
            )
        ),
    ]
    return [hint for hint in found if hint]


def _blocks(state: Iterable[str]) -> tuple[int, ...]:
    """Numbers of blocks of the stages of a ResNet-like body."""
    numbers = defaultdict(set)
    for name in state:
        match = re.match(re.escape(BODY_PREFIX) + r"layer(\d)\.(\d+)\.", name)
        if match:
            numbers[int(match[1])].add(int(match[2]))
    return tuple(len(numbers[stage]) for stage in sorted(numbers))


def _body_hint(theirs: tuple[int, ...], ours: tuple[int, ...]) -> str:
    if not theirs or theirs == ours:
        return ""
    hint = f"its body has {theirs} blocks, the model's {ours or 'none of that kind'}"
    if theirs in _RESNESTS:
        name = _RESNESTS[theirs]
        hint += f": set MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.TIMM.NAME {name}"
    return hint


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    scores = state.get("roi_heads.box_predictor.0.cls_score.weight")
    return None if scores is None else len(scores) - 1


def _class_hint(theirs: int | None, ours: int | None) -> str:
    if theirs is None or ours is None or theirs == ours:
        return ""
    return (
        f"it was trained on {theirs} classes, the data set has {ours}: use data with its classes,"
        " or fine-tune with MODEL.WEIGHTS_ALLOW_PARTIAL True"
    )


def _counts(part: str, *states: Iterable[str]) -> list[int]:
    """How many heads of a kind each state has; one head alone has no number in its name."""
    counts = []
    for state in states:
        names = {name.split(".")[2] for name in state if name.startswith(f"roi_heads.{part}.")}
        numbered = {name for name in names if name.isdigit()}
        counts.append(len(numbered) if numbered else min(len(names), 1))
    return counts


def _count_hint(what: str, key: str, theirs: int, ours: int) -> str:
    if not theirs or theirs == ours:
        return ""
    value = theirs if key.endswith("NUM_HEADS") else f"to {theirs} values"
    return f"it has {theirs} {what}, the model {ours}: set {key} {value}"


def _norm_hint(what: str, key: str, prefix: str, theirs: Iterable[str], ours: Iterable[str]) -> str:
    has = [
        any(name.startswith(prefix) and ".norm." in name for name in state)
        for state in (theirs, ours)
    ]
    covered = any(name.startswith(prefix) for name in theirs)
    if not covered or has[0] == has[1]:
        return ""
    return (
        f"its {what} have norms, the model's have none: set {key} SyncBN"
        if has[0]
        else f'its {what} have no norms, the model\'s have: set {key} ""'
    )
