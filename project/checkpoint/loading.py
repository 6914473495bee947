"""Fill a model from a weights file, completely or with an error that says what does not fit."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from project.checkpoint.diagnosis import config_hints
from project.checkpoint.efficientnet_lite import EFFICIENTNET_LITE
from project.checkpoint.mmdetection import MMDETECTION, MMDETECTION_BODY
from project.checkpoint.native import NATIVE
from project.checkpoint.reading import find_weights, read_checkpoint
from project.checkpoint.resnest_fork import RESNEST_FORK, RESNEST_FORK_BODY
from project.checkpoint.timm_body import TIMM_BODY
from project.checkpoint.weight_format import StateDict, WeightFormat
from project.errors import UserError

logger = logging.getLogger(__name__)

# In the order in which they are tried; the last one takes anything.
FORMATS = (
    MMDETECTION,
    MMDETECTION_BODY,
    RESNEST_FORK,
    RESNEST_FORK_BODY,
    NATIVE,
    EFFICIENTNET_LITE,
    TIMM_BODY,
)


@dataclass(frozen=True)
class LoadReport:
    """What a weights file did to a model; names are those of the model's state dict.

    Attributes:
        source: the file or URL.
        format: name of the recognised format.
        filled: tensors of the model that now hold the file's values.
        unfilled: tensors of the model that the file has nothing for.
        left: tensors of the file that the model has no use for -> the reason.
        mismatched: tensors of both, of different shapes -> (file's shape, model's shape).
    """

    source: str
    format: str
    filled: list[str]
    unfilled: list[str]
    left: dict[str, str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def summary(self) -> str:
        """A few lines for the console."""
        lines = [
            f"Weights from {self.source} ({self.format}):",
            f"  filled {len(self.filled)} tensors: {_by_part(self.filled)}",
        ]
        if self.left:
            reasons = ", ".join(sorted(set(self.left.values())))
            lines.append(f"  left {len(self.left)} of the file ({reasons}): {_by_part(self.left)}")
        if self.mismatched:
            lines.append(f"  left for their shape: {', '.join(self.mismatched)}")
        if self.unfilled:
            lines.append(
                f"  not in the file, initialised at random: {len(self.unfilled)} tensors:"
                f" {_by_part(self.unfilled)}"
            )
        return "\n".join(lines)


def load_weights(model: nn.Module, path: str, allow_partial: bool = False) -> LoadReport:
    """Fill ``model`` with the weights of ``path``, whatever known format they are in.

    Args:
        path: a file, or a URL of Detectron2's PathManager (``timm://``, ``package://``, ...).
        allow_partial: take what fits where the file does not fill all that its format promises.

    Raises:
        UserError: no such file, a damaged one, or one for another architecture; ``model`` is then
            as it was.
    """
    return fill_model(model, read_checkpoint(find_weights(path))["model"], path, allow_partial)


def without_module_prefix(state: StateDict) -> dict[str, Tensor]:
    """``state`` without the "module." that ``DistributedDataParallel`` puts before every name."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def recognise_format(state: StateDict) -> WeightFormat:
    """The format of a state dict without "module." prefixes, from the names of its tensors."""
    return next(weight_format for weight_format in FORMATS if weight_format.recognises(state))


def fill_model(
    model: nn.Module, state: StateDict, source: str, allow_partial: bool = False
) -> LoadReport:
    """As :func:`load_weights`, for a state dict that was read from ``source``."""
    state = without_module_prefix(state)
    weight_format = recognise_format(state)
    model_state = model.state_dict()
    renamed = weight_format.rename(state, set(model_state))

    filled, left, unknown, mismatched = [], {}, [], {}
    for name, tensor in renamed.items():
        if name not in model_state:
            reason = weight_format.reason_to_leave(name)
            left[name] = reason or "unknown to the model"
            if reason is None:
                unknown.append(name)
        elif tensor.shape != model_state[name].shape:
            mismatched[name] = (tuple(tensor.shape), tuple(model_state[name].shape))
        else:
            filled.append(name)
    unfilled = sorted(set(model_state) - set(filled))
    # A counter that no inference needs; older files lack it.
    missing = [
        name
        for name in unfilled
        if name.startswith(weight_format.scope)
        and name not in mismatched
        and not name.endswith("num_batches_tracked")
    ]
    if not filled or (not allow_partial and (missing or unknown or mismatched)):
        hints = config_hints(renamed, model_state)
        raise UserError(_explain(source, weight_format, missing, unknown, mismatched, hints))

    model.load_state_dict({name: renamed[name] for name in filled}, strict=False)
    report = LoadReport(source, weight_format.name, filled, unfilled, left, mismatched)
    logger.info(report.summary())
    return report


def _explain(source, weight_format, missing, unknown, mismatched, hints) -> str:
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} tensors of the model ({_by_part(missing)})")
    if mismatched:
        name, (theirs, ours) = next(iter(mismatched.items()))
        problems.append(
            f"has {len(mismatched)} of another shape ({_by_part(mismatched)}; {name} is {theirs}"
            f" there, {ours} in the model)"
        )
    if unknown:
        problems.append(f"has {len(unknown)} that the model lacks ({_by_part(unknown)})")
    advice = "; ".join(hints) or "choose the config that it was trained with"
    return (
        f"MODEL.WEIGHTS {source} ({weight_format.name}) is for another model: it"
        f" {'; it '.join(problems)}; {advice} (MODEL.WEIGHTS_ALLOW_PARTIAL True takes what fits)"
    )


def _by_part(names: Iterable[str], shown: int = 4) -> str:
    """ "roi_heads.mask_head 12, ..." : the first two levels of the names, counted."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    parts = [f"{part} {count}" for part, count in counts.most_common(shown)]
    return ", ".join(parts + ["..."] * (len(counts) > shown))
