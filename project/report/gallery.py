"""Pictures for the gallery: small, with their masks as outlines."""

import base64
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from project.data.reading import read_image
from project.data.segmentation import decode_segmentation
from project.evaluation.error_analysis import Found, Kind, Truth
from project.report.runs import EvaluatedRun, JudgedPicture

LONG_SIDES = (480, 400, 352, 288, 224, 160)  # pixels; the largest that fits into the budget
BUDGET = 18e6  # bytes of all JPEGs; base64 adds a third
_JPEG_QUALITY = 72
_SAMPLE = 24


def choose_pictures(run: EvaluatedRun, number: int) -> list[JudgedPicture]:
    """All pictures, the worst first; where there are more than ``number``, the worst and the best.

    Of those, four fifths are the worst.
    """
    ordered = sorted(run.pictures.values(), key=lambda picture: picture.quality)
    if len(ordered) <= number:
        return ordered
    worst = math.ceil(number * 4 / 5)
    return [*ordered[:worst], *ordered[len(ordered) - (number - worst) :]]


def gallery_records(
    pictures: Sequence[JudgedPicture], run: EvaluatedRun, other: EvaluatedRun | None
) -> Iterable[dict]:
    """What the page's script shows, picture by picture.

    Args:
        other: a run on the same pictures to show beside.

    Raises:
        UserError: a picture cannot be read.
    """
    long_side = _long_side([run.image_root / p.image["file_name"] for p in pictures])
    index = run.categories.contiguous_ids
    for picture in pictures:
        image, jpeg = _thumbnail(run.image_root / picture.image["file_name"], long_side)
        size = image.shape[:2]
        missed = {id(truth) for truth in picture.missed}
        record = {
            "id": picture.image["id"],
            "file": picture.image["file_name"],
            "width": size[1],
            "height": size[0],
            "jpeg": base64.b64encode(jpeg).decode("ascii"),
            "quality": round(picture.quality, 3),
            "found": [_detection(item, picture, size, index) for item in picture.found],
            "objects": [
                {
                    "class": index[truth.category_id],
                    "kind": Kind.MISSED if id(truth) in missed else Kind.CORRECT,
                    "path": _path(truth, picture, size),
                }
                for truth in picture.objects
            ],
        }
        if other is not None:
            theirs = other.pictures[picture.image["id"]]
            record["otherQuality"] = round(theirs.quality, 3)
            record["other"] = [_detection(item, theirs, size, index) for item in theirs.found]
        yield record


def _detection(
    item: Found, picture: JudgedPicture, size: tuple[int, int], index: dict[int, int]
) -> dict:
    return {
        "class": index[item.category_id],
        "kind": item.kind,
        "score": round(item.score, 3),
        "iou": round(item.iou, 2),
        "path": _path(item, picture, size),
    }


def _path(item: Found | Truth, picture: JudgedPicture, size: tuple[int, int]) -> str:
    """The outline of a mask in a picture of ``size``, as an SVG path."""
    mask = decode_segmentation(item.segmentation, picture.image["height"], picture.image["width"])
    small = cv2.resize(mask.view(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours(
        (small > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    outlines = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0] for contour in contours]
    outlines = [outline for outline in outlines if len(outline) > 2]
    if not outlines and mask.any():
        outlines = [_small_box(mask, size)]
    # Contours run through the centres of pixels.
    return "".join(
        "M" + " ".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in outline) + "Z" for outline in outlines
    )


def _small_box(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The corners of a mask's box in a picture of ``size``, at least 2 pixels wide and high."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    scale = np.array([size[1] / mask.shape[1], size[0] / mask.shape[0]])
    low = np.array([x, y]) * scale - 0.5
    high = np.maximum(np.array([x + width, y + height]) * scale - 0.5, low + 2)
    return np.array([low, (high[0], low[1]), high, (low[0], high[1])])


def _thumbnail(path: Path, long_side: int) -> tuple[np.ndarray, bytes]:
    """A picture that is not larger than it was, BGR, and its JPEG."""
    image = read_image(path, "BGR")
    scale = min(1.0, long_side / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return image, jpeg.tobytes()


def _long_side(paths: Sequence[Path]) -> int:
    """The largest of :data:`LONG_SIDES` with which all pictures fit into the budget."""
    sample = paths[:: max(1, len(paths) // _SAMPLE)]
    for long_side in LONG_SIDES[:-1]:
        mean = np.mean([len(_thumbnail(path, long_side)[1]) for path in sample] or [0])
        if mean * len(paths) <= BUDGET:
            return long_side
    return LONG_SIDES[-1]
