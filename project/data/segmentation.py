"""Masks as COCO segmentations, and back: encoding loses no pixel."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from project.errors import UserError


def decode_segmentation(segmentation: list | Mapping, height: int, width: int) -> np.ndarray:
    """A COCO segmentation (polygons, RLE of both kinds) as a mask. bool, shape (H, W).

    Raises:
        UserError: the RLE is of another size.
    """
    # pycocotools fills columns; whoever works on rows would copy them slowly each time.
    return cv2.transpose(coco_mask.decode(as_rle(segmentation, height, width)).T).view(bool)


def as_rle(segmentation: list | Mapping, height: int, width: int) -> Mapping:
    """A COCO segmentation as pycocotools' compressed RLE; what is one stays the same object.

    Raises:
        UserError: the RLE is of another size.
    """
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if list(segmentation["size"]) != [height, width]:
        size = " x ".join(map(str, segmentation["size"]))
        raise UserError(f"an RLE of {size} pixels does not fit a picture of {height} x {width}")
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def uncompressed_rle(mask: np.ndarray) -> dict:
    """COCO's list of run lengths, column by column, outside first. ``mask``: bool (H, W)."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def compressed_rle(mask: np.ndarray) -> dict:
    """COCO's run lengths as a string. ``mask``: bool, shape (H, W)."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def mask_ious(first: Sequence[Mapping], second: Sequence[Mapping]) -> np.ndarray:
    """IoU of each RLE with each; 1 for two empty masks, of which pycocotools says 0.

    Returns:
        float64, shape (N, M).
    """
    if not first or not second:
        return np.zeros((len(first), len(second)))
    ious = coco_mask.iou(first, second, [0] * len(second))
    # One by one: in a list, pycocotools takes 255 at most.
    are_empty = [[coco_mask.area(rle) == 0 for rle in rles] for rles in (first, second)]
    ious[np.logical_and.outer(*are_empty)] = 1
    return ious


def mask_fields(mask: np.ndarray, segmentation: list | Mapping) -> dict:
    """COCO's fields of an annotation that a mask decides.

    Args:
        mask: bool, shape (H, W), not empty.
        segmentation: how the mask is to be written.

    Returns:
        "segmentation", "bbox" (x, y, width, height in whole pixels), "area", "iscrowd" 0.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return {
        "segmentation": segmentation,
        "bbox": [x, y, width, height],
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def polygons(mask: np.ndarray) -> list[list[int]] | None:
    """Polygons along the pixel edges of ``mask`` (bool, (H, W)), one for each connected part.

    Returns:
        Lists of x, y, x, y, ...; None where polygons cannot say it exactly (holes, no pixel).
    """
    rings = _boundary_rings(mask)
    if not rings or any(_signed_area(ring) < 0 for ring in rings):
        return None
    segmentation = [[value for point in ring for value in point] for ring in rings]
    height, width = mask.shape
    exact = np.array_equal(decode_segmentation(segmentation, height, width), mask)
    return segmentation if exact else None


def _boundary_rings(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The corners of the boundary, the mask on the right hand; holes run the other way round."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # Unit edges from corner to corner: above a pixel to the right, below to the left, and so on.
    edges = [
        (np.nonzero(inside & ~padded[:-2, 1:-1]), (0, 0), (1, 0)),
        (np.nonzero(inside & ~padded[1:-1, 2:]), (1, 0), (0, 1)),
        (np.nonzero(inside & ~padded[2:, 1:-1]), (1, 1), (-1, 0)),
        (np.nonzero(inside & ~padded[1:-1, :-2]), (0, 1), (0, -1)),
    ]
    following: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for (rows, columns), (x, y), direction in edges:
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            following[column + x, row + y].append(direction)

    rings = []
    while following:
        start = next(iter(following))
        point, direction, ring = start, None, []
        while True:
            choices = following[point]
            # Where two pixels touch at a corner, turning right keeps them apart (4-connectivity).
            chosen = _right_of(direction) if len(choices) > 1 and direction else choices[0]
            chosen = chosen if chosen in choices else choices[0]
            choices.remove(chosen)
            if not choices:
                del following[point]
            if chosen != direction:
                ring.append(point)
            point, direction = (point[0] + chosen[0], point[1] + chosen[1]), chosen
            if point == start and _closes(ring, direction, following.get(start)):
                break
        rings.append(ring)
    return rings


def _right_of(direction: tuple[int, int]) -> tuple[int, int]:
    return (-direction[1], direction[0])


def _closes(ring, direction, choices) -> bool:
    """Back at the start: the ring is closed unless turning right leads on through this corner."""
    return not choices or _right_of(direction) not in choices


def _signed_area(ring: list[tuple[int, int]]) -> int:
    x, y = np.array(ring).T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
