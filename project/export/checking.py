"""Does an exported file find what the model finds?"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

from project.data.synthetic.scene import render_scene
from project.runtime.detections import Detections

# Equal computations in another order are allowed to differ by so much.
MAX_BOX_DIFFERENCE = 0.05  # pixels of the picture
MAX_SCORE_DIFFERENCE = 1e-4
MIN_MASK_IOU = 0.99
TIE = 1e-3  # so close to a limit, a score or an IoU may fall on either side of it
_SAME_OBJECT = 1.0  # pixels


@dataclass
class Agreement:
    """The worst differences between two detectors.

    Attributes:
        pictures, detections: that were compared.
        ties: detections of one only, because of a limit that they are next to.
        unmatched: detections of one only, without such a reason.
        box: the largest difference of a corner's coordinate, pixels of the picture.
        score: the largest difference of a score.
        mask_iou: the smallest IoU of two masks; 1 without any.
    """

    pictures: int = 0
    detections: int = 0
    ties: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_iou: float = 1.0

    @property
    def is_close(self) -> bool:
        """Whether they differ by no more than another order of the same computation may."""
        return (
            self.unmatched == 0
            and self.box <= MAX_BOX_DIFFERENCE
            and self.score <= MAX_SCORE_DIFFERENCE
            and self.mask_iou >= MIN_MASK_IOU
        )

    def __str__(self) -> str:
        return (
            f"{self.detections} detections in {self.pictures} pictures: boxes differ by at most"
            f" {self.box:.1e} px, scores by {self.score:.1e}, masks' IoU is at least"
            f" {self.mask_iou:.4f}; found by one only: {self.unmatched}, and {self.ties} at a limit"
        )


@dataclass(frozen=True)
class Limits:
    """Where a detector decides whether a candidate becomes a detection.

    Attributes:
        score: the least one.
        nms_iou: of an object and another one of its class, the less certain goes.
        number: of detections of a picture, at most.
    """

    score: float
    nms_iou: float
    number: int


def compare(
    expected: Callable[[np.ndarray], Detections],
    found: Callable[[np.ndarray], Detections],
    pictures: Iterable[np.ndarray],
    limits: Limits,
) -> Agreement:
    """Run two detectors on the same pictures.

    Args:
        pictures: RGB, uint8, shape (H, W, 3) each.
        limits: of both.
    """
    agreement = Agreement()
    for picture in pictures:
        _add(agreement, expected(picture), found(picture), limits)
    return agreement


def share_kept(
    expected: Callable[[np.ndarray], Detections],
    found: Callable[[np.ndarray], Detections],
    pictures: Iterable[np.ndarray],
    score: float = 0.5,
) -> tuple[float, int]:
    """How many of one detector's objects another one, of less precision, finds too.

    Args:
        pictures: RGB, uint8, shape (H, W, 3) each.
        score: of the objects that are looked for, at least; those found may be less certain.

    Returns:
        The share, of the same class with an IoU of 0.5, NaN where there is none; and of how many.
    """
    number = matched = 0
    for picture in pictures:
        wanted, others = expected(picture), found(picture)
        wanted = wanted[wanted.scores >= score]
        iou = box_iou(torch.from_numpy(wanted.boxes_xyxy), torch.from_numpy(others.boxes_xyxy))
        same_class = wanted.category_ids[:, None] == others.category_ids
        matched += int(((iou.numpy() >= 0.5) & same_class).any(axis=1).sum())
        number += len(wanted)
    return matched / number if number else math.nan, number


def check_pictures(sizes: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """Generated pictures with objects, of the wanted (H, W), and one of noise without any.

    Returns:
        RGB, uint8, shape (H, W, 3) each.
    """
    pictures = [
        cv2.resize(render_scene(0, "test", index).image, (width, height))
        for index, (height, width) in enumerate(sizes)
    ]
    # Not of one colour: detections would be equally certain, and their order chance.
    noise = np.random.default_rng(0).normal(128, 8, (240, 320, 3)).astype(np.uint8)
    return [*pictures, noise]


def _add(agreement: Agreement, expected: Detections, found: Detections, limits: Limits) -> None:
    pairs = _pairs(expected, found)
    agreement.pictures += 1
    agreement.detections += len(expected)
    for i, j in pairs:
        box = np.abs(expected.boxes_xyxy[i] - found.boxes_xyxy[j]).max()
        agreement.box = max(agreement.box, float(box))
        score = abs(expected.scores[i] - found.scores[j])
        agreement.score = max(agreement.score, float(score))
        if expected.masks is not None:
            one, other = expected.masks[i], found.masks[j]
            union = (one | other).sum()
            iou = float((one & other).sum() / union) if union else 1.0
            agreement.mask_iou = min(agreement.mask_iou, iou)
    for detections, other, column in ((expected, found, 0), (found, expected, 1)):
        for index in set(range(len(detections))) - {pair[column] for pair in pairs}:
            if _is_tie(detections, index, other, limits):
                agreement.ties += 1
            else:
                agreement.unmatched += 1


def _pairs(expected: Detections, found: Detections) -> list[tuple[int, int]]:
    """Indices of the detections of the same class with nearly the same box."""
    pairs, free = [], set(range(len(found)))
    for i in range(len(expected)):
        distance = {
            j: np.abs(expected.boxes_xyxy[i] - found.boxes_xyxy[j]).max()
            for j in free
            if found.category_ids[j] == expected.category_ids[i]
        }
        nearest = min(distance, key=distance.get, default=None)
        if nearest is not None and distance[nearest] <= _SAME_OBJECT:
            pairs.append((i, nearest))
            free.remove(nearest)
    return pairs


def _is_tie(detections: Detections, index: int, other: Detections, limits: Limits) -> bool:
    """Whether the other detector may have left out a detection."""
    score = detections.scores[index]
    if score <= limits.score + TIE:
        return True
    if len(other) == limits.number and score <= other.scores.min() + TIE:
        return True
    # Next to the overlap that is allowed, or as certain as one that it overlaps too much.
    for rivals in (detections, other):
        same_class = rivals.category_ids == detections.category_ids[index]
        iou = box_iou(
            torch.from_numpy(detections.boxes_xyxy[index : index + 1]),
            torch.from_numpy(rivals.boxes_xyxy[same_class]),
        )[0].numpy()
        as_certain = np.abs(rivals.scores[same_class] - score) <= TIE
        is_near = np.abs(iou - limits.nms_iou) <= TIE
        if (is_near | (as_certain & (iou > limits.nms_iou) & (rivals is other))).any():
            return True
    return False
