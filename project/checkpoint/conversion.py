"""Detectors of other projects as Detectron2 checkpoints, and ours as mmdetection's."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from project.checkpoint.loading import recognise_format, without_module_prefix
from project.checkpoint.mmdetection import MMDETECTION_NAMES
from project.checkpoint.native import NATIVE
from project.checkpoint.reading import class_names
from project.checkpoint.weight_format import WeightFormat
from project.data.categories import Categories
from project.errors import UserError


def to_detectron2(content: Mapping[str, Any]) -> dict[str, Any]:
    """A foreign detector under our names.

    Args:
        content: what :func:`project.checkpoint.reading.read_checkpoint` returned.

    Returns:
        ``{"model": state dict}``, ``"meta"`` with the names of the classes if they are known, and
        "categories" and "config" of a checkpoint of this project.

    Raises:
        UserError: it is a body only, or has a tensor that our detector has not.
    """
    state = without_module_prefix(content["model"])
    weight_format = recognise_format(state)
    if weight_format.scope:
        raise UserError(
            f"it holds a body only ({weight_format.name}); MODEL.WEIGHTS takes it as it is"
        )
    renamed = weight_format.rename(state, set())
    model = {n: t for n, t in renamed.items() if weight_format.reason_to_leave(n) is None}
    unknown = [name for name in model if not NATIVE.recognises([name])]
    if unknown:
        raise UserError(_unknown(weight_format, unknown, "Detectron2"))
    known = ("categories", "config") if weight_format is NATIVE else ()
    kept = {key: content[key] for key in known if key in content}
    return {"model": model, **kept, **_meta(class_names(content))}


def to_mmdetection(content: Mapping[str, Any]) -> dict[str, Any]:
    """A detector of ours as mmdetection 2 and 3 load it.

    Returns:
        ``{"meta": ..., "state_dict": ...}``.

    Raises:
        UserError: mmdetection's Cascade Mask R-CNN with ResNeSt has no such tensor.
    """
    state = without_module_prefix(content["model"])
    weight_format = recognise_format(state)
    if weight_format is not NATIVE:
        raise UserError(f"it is named as {weight_format.name}, not as Detectron2")
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        theirs = MMDETECTION_NAMES.to_theirs(name)
        if theirs is not None:
            renamed[theirs] = tensor
        elif NATIVE.reason_to_leave(name) is None:
            unknown.append(name)
    if unknown:
        raise UserError(_unknown(NATIVE, unknown, "mmdetection (three mask heads, ResNeSt)"))
    categories = content.get("categories")
    names = Categories.from_mapping(categories).names if categories else class_names(content)
    return {"meta": {}, **_meta(names), "state_dict": renamed}


CONVERSIONS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "detectron2": to_detectron2,
    "mmdetection": to_mmdetection,
}


def default_target(content: Mapping[str, Any]) -> str:
    """The key of ``CONVERSIONS`` that makes sense: ours to mmdetection, others to Detectron2."""
    is_ours = recognise_format(without_module_prefix(content["model"])) is NATIVE
    return "mmdetection" if is_ours else "detectron2"


def _meta(names: tuple[str, ...] | None) -> dict[str, Any]:
    if names is None:
        return {}
    # Version 2 of mmdetection reads the first, version 3 the second.
    return {"meta": {"CLASSES": names, "dataset_meta": {"classes": names}}}


def _unknown(weight_format: WeightFormat, names: list[str], target: str) -> str:
    return (
        f"{len(names)} tensors of it ({weight_format.name}) have no name in {target}, such as"
        f" {names[0]}"
    )
