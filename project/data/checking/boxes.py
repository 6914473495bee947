"""Check, and where that is certain repair, one annotation's box and area."""

import math
from collections.abc import Iterator, Mapping

from project.data.checking.masks import InspectedMask, is_number

_PIXEL_TOLERANCE = 1.0
_SAME_BOX_IOU, _HARDLY_OVERLAPS = 0.9, 0.5


def inspect_box(
    annotation: Mapping, mask: InspectedMask, height: int, width: int
) -> Iterator[tuple]:
    """Check an annotation's "bbox" against its mask and its picture.

    Yields:
        "bbox", the problem's kind and perhaps detail, and the repaired value; None to keep it.
    """
    box = annotation.get("bbox")
    whole = list(mask.box)
    if box is None:
        yield "bbox", ("bbox-missing",), whole
        return
    if not isinstance(box, list) or len(box) != 4:
        yield "bbox", ("bbox-shape", repr(box)[:60]), whole
        return
    if not all(map(is_number, box)):
        yield "bbox", ("bbox-not-numbers", repr(box)[:60]), whole
        return
    if not all(map(math.isfinite, box)):
        yield "bbox", ("bbox-nan", str(box)), whole
        return
    x, y, w, h = box
    if w <= 0 or h <= 0:
        yield "bbox", ("bbox-empty", str(box)), whole
        return
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        yield "bbox", ("bbox-outside", f"{box} in {width} x {height}"), whole
        return
    iou = _iou(box, mask.box)
    corners = [x, y, w - x, h - y]
    if iou < _HARDLY_OVERLAPS and w > x and h > y and _iou(corners, mask.box) > _SAME_BOX_IOU:
        yield "bbox", ("bbox-corners", str(box)), corners
        return
    if max(-x, -y, x + w - width, y + h - height) > _PIXEL_TOLERANCE:
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        cut = [left, top, right - left, bottom - top]
        if _iou(cut, mask.box) < _HARDLY_OVERLAPS:
            cut = whole
        yield "bbox", ("bbox-partly-outside", f"{box} in {width} x {height}"), cut
    elif iou < _HARDLY_OVERLAPS:
        yield "bbox", ("bbox-differs", f"IoU {iou:.2f}: {box}, mask {whole}"), whole


def inspect_area(annotation: Mapping, mask: InspectedMask) -> Iterator[tuple]:
    """Check an annotation's "area" against its mask; yields as :func:`inspect_box`."""
    area = annotation.get("area")
    if area is None:
        yield "area", ("area-missing",), mask.area
    elif not is_number(area) or not 0 < area < math.inf:
        yield "area", ("area-invalid", repr(area)[:40]), mask.area
    elif mask.area > 1 and not 0.5 < area / mask.area < 2:
        yield "area", ("area-differs", f"{area:g}, mask {mask.area:g}"), None


def _iou(first: list, second: tuple) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    union = first[2] * first[3] + second[2] * second[3] - common
    return common / union if union > 0 else 0.0
