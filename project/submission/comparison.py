"""How two submissions for the same pictures differ."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from project.data.segmentation import mask_ious


@dataclass(frozen=True)
class Pair:
    """Two detections of one object.

    Attributes:
        first, second: COCO results.
        iou: of their masks.
    """

    first: Mapping
    second: Mapping
    iou: float

    @property
    def categories(self) -> tuple[int, int]:
        """Their category ids."""
        return self.first["category_id"], self.second["category_id"]

    @property
    def same_category(self) -> bool:
        return self.categories[0] == self.categories[1]


@dataclass(frozen=True)
class Comparison:
    """What is in both of two submissions, and what is in one.

    Attributes:
        pairs: detections of the same place, perhaps of different categories.
        only_first, only_second: the others.
    """

    pairs: list[Pair]
    only_first: list[Mapping]
    only_second: list[Mapping]

    def of_image(self, image_id: object) -> "Comparison":
        """That part of it."""
        return Comparison(
            [pair for pair in self.pairs if pair.first["image_id"] == image_id],
            [item for item in self.only_first if item["image_id"] == image_id],
            [item for item in self.only_second if item["image_id"] == image_id],
        )

    def of_category(self, category_id: int) -> "Comparison":
        """Pairs of which one has the category, and others that have it."""
        return Comparison(
            [pair for pair in self.pairs if category_id in pair.categories],
            [item for item in self.only_first if item["category_id"] == category_id],
            [item for item in self.only_second if item["category_id"] == category_id],
        )

    def number_of_differences(self) -> int:
        """Detections of one only, and pairs of different categories."""
        relabelled = sum(not pair.same_category for pair in self.pairs)
        return len(self.only_first) + len(self.only_second) + relabelled

    def differences_by_image(self) -> dict[object, int]:
        """Image id -> :meth:`number_of_differences`, the largest first, without zeros."""
        counts: dict[object, int] = defaultdict(int)
        for pair in self.pairs:
            counts[pair.first["image_id"]] += not pair.same_category
        for item in (*self.only_first, *self.only_second):
            counts[item["image_id"]] += 1
        return {i: n for i, n in sorted(counts.items(), key=lambda item: -item[1]) if n}


def compare_submissions(
    first: Sequence[Mapping], second: Sequence[Mapping], iou_threshold: float = 0.5
) -> Comparison:
    """Pair the detections of two submissions by the IoU of their masks.

    The best fitting go together first; of equally fitting ones, those of one category, then those
    with the closest scores. A detection is in one pair at most.

    Args:
        first, second: COCO results with RLE masks.
        iou_threshold: detections of a pair have at least this IoU.
    """
    grouped: dict[object, tuple[list, list]] = defaultdict(lambda: ([], []))
    for number, submission in enumerate((first, second)):
        for detection in submission:
            grouped[detection["image_id"]][number].append(detection)
    pairs, only_first, only_second = [], [], []
    for ours, theirs in grouped.values():
        rles = [[item["segmentation"] for item in items] for items in (ours, theirs)]
        ious = mask_ious(*rles)
        candidates = [
            (i, j, Pair(ours[i], theirs[j], float(ious[i, j])))
            for i, j in zip(*np.nonzero(ious >= iou_threshold), strict=True)
        ]
        left_first, left_second = dict(enumerate(ours)), dict(enumerate(theirs))
        for i, j, pair in sorted(candidates, key=lambda candidate: _rank(candidate[2])):
            if i in left_first and j in left_second:
                del left_first[i], left_second[j]
                pairs.append(pair)
        only_first += left_first.values()
        only_second += left_second.values()
    return Comparison(pairs, only_first, only_second)


def _rank(pair: Pair) -> tuple:
    return -pair.iou, not pair.same_category, abs(pair.first["score"] - pair.second["score"])
