"""Check, and where that is certain repair, one annotation's segmentation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from pycocotools import mask as coco_mask

_THICK_ENOUGH = 2.0  # pixels on average; thinner polygons are rasterised to see if one is in them
_FAR = 10  # times the picture's longer side; pycocotools' memory grows with the distance


@dataclass
class InspectedMask:
    """What is known of a segmentation.

    Attributes:
        problems: kind and detail of each; see :data:`project.data.checking.problems.KINDS`.
        segmentation: the repaired one; None where it must be left out.
        box: x, y, w, h of the mask, in pixels, inside the picture.
        area: in pixels.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    segmentation: list | dict | None = None
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    area: float = 0.0


def inspect_mask(segmentation: object, height: int, width: int) -> InspectedMask:
    """Check a COCO segmentation of a picture of that size."""
    result = InspectedMask()
    if isinstance(segmentation, Mapping):
        _inspect_rle(segmentation, height, width, result)
    elif not isinstance(segmentation, list):
        result.problems.append(("mask-type", type(segmentation).__name__))
    elif not segmentation:
        result.problems.append(("mask-list-empty", ""))
    else:
        _inspect_polygons(segmentation, height, width, result)
    return result


def _inspect_polygons(segmentation: list, height: int, width: int, result: InspectedMask) -> None:
    problems = result.problems
    parts = _as_polygons(segmentation, problems)
    kept, corners, area = [], [], 0.0
    for part in parts:
        problem = _defect(part, height, width)
        if problem is None:
            xs, ys = part[0::2], part[1::2]
            left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
            beyond = max(-left, -top, right - width, bottom - height)
            if right <= 0 or bottom <= 0 or left >= width or top >= height:
                problem = ("polygon-outside", _extent(xs, ys))
            elif beyond > _FAR * max(height, width):
                problem = ("polygon-far-outside", _extent(xs, ys))
            elif beyond > 1:
                problems.append(("polygon-partly-outside", _extent(xs, ys)))
        if problem is None:
            size = abs(sum(map(_cross, xs, ys, chain(xs[1:], xs[:1]), chain(ys[1:], ys[:1])))) / 2
            if beyond > 1 or size <= _THICK_ENOUGH * max(right - left, bottom - top):
                pixels = _pixels([part], height, width)
                if not pixels:
                    problem = ("polygon-empty", f"area {size:g}")
                if beyond > 1:
                    size = pixels  # what is outside does not count
        if problem is not None:
            problems.append(problem)
            if problem[0] not in ("polygon-few-points", "polygon-outside", "polygon-empty"):
                return  # an error: nothing is certain any more
            continue
        kept.append(part)
        corners.append((left, top, right, bottom))
        area += size
    if not kept:
        problems.append(("mask-empty", ""))
        return
    left, top = (max(min(c[i] for c in corners), 0) for i in (0, 1))
    right = min(max(c[2] for c in corners), width)
    bottom = min(max(c[3] for c in corners), height)
    result.segmentation = segmentation if kept == segmentation else kept
    result.box = (left, top, right - left, bottom - top)
    result.area = area


def is_number(value: object) -> bool:
    """Whether a value of a JSON is a number; True and False are none."""
    return type(value) is float or type(value) is int


def _extent(xs: list, ys: list) -> str:
    return f"x {min(xs)} to {max(xs)}, y {min(ys)} to {max(ys)}"


def _cross(x: float, y: float, next_x: float, next_y: float) -> float:
    return x * next_y - next_x * y


def _as_polygons(segmentation: list, problems: list) -> list[list]:
    """The list of polygons that a list was meant to be."""
    first = segmentation[0]
    if is_number(first):
        problems.append(("polygon-flat", f"{len(segmentation)} numbers"))
        return [segmentation]
    if all(isinstance(p, list) and len(p) == 2 and is_number(p[0]) for p in segmentation):
        problems.append(("polygon-pairs", f"{len(segmentation)} points"))
        return [list(chain.from_iterable(segmentation))]
    if any(isinstance(part, list) and part and isinstance(part[0], list) for part in segmentation):
        flat = []
        for part in segmentation:
            while isinstance(part, list) and len(part) == 1 and isinstance(part[0], list):
                part = part[0]
            if isinstance(part, list) and part and all(isinstance(p, list) for p in part):
                part = list(chain.from_iterable(part))  # pairs
            flat.append(part)
        problems.append(("polygon-nested", ""))
        return flat
    return segmentation


def _defect(part: object, height: int, width: int) -> tuple[str, str] | None:
    """What is wrong with one polygon's list of numbers."""
    if not isinstance(part, list):
        return ("polygon-not-numbers", type(part).__name__)
    try:
        total = math.fsum(part)
    except (TypeError, ValueError, OverflowError) as error:
        return _number_defect(part, error)
    if not math.isfinite(total):
        return ("polygon-nan", "")
    if len(part) % 2:
        return ("polygon-odd", f"{len(part)} numbers")
    if len(part) < 6:
        return ("polygon-few-points", f"{len(part) // 2} point(s)")
    if max(part) <= 1 and min(part) >= 0 and min(height, width) > 8 and any(v % 1 for v in part):
        return ("polygon-relative", f"all within {min(part):g} and {max(part):g}")
    return None


def _number_defect(part: list, error: Exception) -> tuple[str, str]:
    # fsum raises ValueError and OverflowError for infinities.
    if isinstance(error, TypeError):
        wrong = next(v for v in part if not is_number(v))
        return ("polygon-not-numbers", repr(wrong)[:40])
    return ("polygon-nan", "")


def _pixels(segmentation: list, height: int, width: int) -> int:
    return int(coco_mask.area(coco_mask.frPyObjects(segmentation, height, width)).sum())


def _inspect_rle(rle: Mapping, height: int, width: int, result: InspectedMask) -> None:
    size, counts = rle.get("size"), rle.get("counts")
    if counts is None or not (isinstance(size, list) and len(size) == 2):
        result.problems.append(("rle-incomplete", f"it has {', '.join(rle) or 'nothing'}"))
        return
    if size != [height, width]:
        kind = "rle-size-swapped" if size == [width, height] else "rle-size"
        result.problems.append((kind, f"{size} in a picture of {[height, width]}"))
        return
    problem, runs = _runs(counts)
    if problem is None and any(run < 0 for run in runs):
        problem = ("rle-negative", str(min(runs)))
    if problem is None and sum(runs) != height * width:
        problem = ("rle-sum", f"{sum(runs)} of {height * width}")
    if problem is None and not sum(runs[1::2]):
        problem = ("mask-empty", "")
    if problem is not None:
        result.problems.append(problem)
        return
    result.segmentation = rle
    encoded = coco_mask.frPyObjects({"size": size, "counts": runs}, height, width)
    result.box = tuple(coco_mask.toBbox(encoded).tolist())
    result.area = float(coco_mask.area(encoded))


def _runs(counts: object) -> tuple[tuple[str, str] | None, list[int]]:
    """The run lengths of either form, outside first."""
    if isinstance(counts, str):
        runs = decode_counts(counts)
        return (None, runs) if runs is not None else (("rle-broken", repr(counts[:20])), [])
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return None, counts
    return ("rle-not-integers", type(counts).__name__), []


def decode_counts(text: str) -> list[int] | None:
    """The run lengths in COCO's compressed text (pycocotools' rleFrString), None if it is broken.

    pycocotools reads beyond the end of a text that is cut off.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        # From the fourth on, the difference to the one before the last.
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs
