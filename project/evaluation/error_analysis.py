"""Where the errors of a detector are: classification, localisation, duplicates, background, misses.

After TIDE (Bolya et al. 2020, "TIDE: a general toolbox for identifying object detection errors"),
on masks: each false positive has one main cause, and a cause costs as much AP50 as would be won if
it alone were repaired. The order in which causes are tried, and what is repaired how, are those of
the authors' tidecv/quantify.py and tidecv/errors/main_errors.py.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from pycocotools import mask as coco_mask

from project.data.categories import Categories
from project.data.segmentation import as_rle

FOREGROUND_IOU = 0.5  # t_f of TIDE: the detection has found the object
BACKGROUND_IOU = 0.1  # t_b of TIDE: below, there is nothing
RECALLS = np.linspace(0, 1, 101)


class Kind(StrEnum):
    """What became of a detection, or of an object."""

    CORRECT = "correct"
    IGNORED = "ignored"  # in a crowd
    CLASSIFICATION = "classification"
    LOCALISATION = "localisation"
    BOTH = "both"
    DUPLICATE = "duplicate"
    BACKGROUND = "background"
    MISSED = "missed"


ERRORS = (
    *(Kind.CLASSIFICATION, Kind.LOCALISATION, Kind.BOTH),
    *(Kind.DUPLICATE, Kind.BACKGROUND, Kind.MISSED),
)


@dataclass
class Found:
    """A detection, judged.

    Attributes:
        image_id: of the JSON.
        category_id, score, segmentation: as detected.
        kind: what it is.
        iou: with ``truth``, or with what it overlaps most; 0 where that is nothing.
        truth: the object that it has found, or would if the error were repaired; else None.
    """

    image_id: int | str
    category_id: int
    score: float
    segmentation: Mapping
    kind: Kind = Kind.BACKGROUND
    iou: float = 0.0
    truth: "Truth | None" = None

    @property
    def is_counted(self) -> bool:
        """Whether it is right or wrong, and not in a crowd."""
        return self.kind is not Kind.IGNORED


@dataclass(eq=False)
class Truth:
    """An annotated object that is no crowd, and the detections of it.

    Attributes:
        image_id, category_id, segmentation: as annotated; the segmentation is a compressed RLE.
        found: the detection that is correct, if there is one.
        repairable: errors of classification or localisation that would have found it.
    """

    image_id: int | str
    category_id: int
    segmentation: Mapping
    found: Found | None = None
    repairable: list[Found] = field(default_factory=list)


@dataclass(frozen=True)
class ErrorAnalysis:
    """All detections and objects of a data set, judged.

    Attributes:
        detections: of all images, the most certain first.
        objects: of all images; crowds are none.
        categories: of the data set.
    """

    detections: list[Found]
    objects: list[Truth]
    categories: Categories

    def ap50(self) -> float:
        """COCO's AP at an IoU of 0.5, in percent; NaN without objects."""
        return _mean_ap(self._scores(), self._numbers())

    def cost(self, kind: Kind) -> float:
        """AP50 that would be won, in points, if all errors of one kind were repaired.

        A wrong class or mask becomes right, or is left out where the object is found already or a
        more certain detection would find it; other false positives are left out; what was missed is
        not asked for.
        """
        numbers, scores = self._numbers(), self._scores(repaired=kind)
        if kind is Kind.MISSED:
            for truth in self.missed():
                numbers[truth.category_id] -= 1
            # A class that has no object left has an AP of 0 or, without detections, none.
            numbers = {i: number for i, number in numbers.items() if number or scores[i]}
        return _mean_ap(scores, numbers) - self.ap50()

    def missed(self, threshold: float | None = None) -> list[Truth]:
        """Objects that no detection has found, and that no repair of another error would find.

        Args:
            threshold: leave out less certain detections; None for none.
        """
        least = -1.0 if threshold is None else threshold
        return [
            truth
            for truth in self.objects
            if (truth.found is None or truth.found.score < least)
            and not any(found.score >= least for found in truth.repairable)
        ]

    def best_threshold(self) -> float:
        """The score from which on detections have the largest F1, at an IoU of 0.5."""
        counted = [found for found in self.detections if found.is_counted]
        if not counted:
            return 0.5
        correct = np.cumsum([found.kind is Kind.CORRECT for found in counted])
        f1 = 2 * correct / (np.arange(len(counted)) + 1 + len(self.objects))
        return counted[int(np.argmax(f1))].score

    def confusion(self, threshold: float) -> np.ndarray:
        """Counts of objects (rows) by what they are taken for (columns), from ``threshold`` on.

        The last row is the background, the last column what is missed: neither found nor found
        under another name.

        Returns:
            int64, shape (K + 1, K + 1).
        """
        index = self.categories.contiguous_ids
        last = len(index)
        matrix = np.zeros((last + 1, last + 1), dtype=np.int64)
        named = set()
        for found in self.detections:
            if found.score < threshold or not found.is_counted:
                continue
            row = last
            if found.kind in (Kind.CORRECT, Kind.CLASSIFICATION):
                row = index[found.truth.category_id]
                named.add(id(found.truth))
            matrix[row, index[found.category_id]] += 1
        for truth in self.objects:
            if id(truth) not in named:
                matrix[index[truth.category_id], last] += 1
        return matrix

    def calibration(self, bins: int = 10) -> list[tuple[float, float, int]]:
        """Mean score, share of correct ones, and number of detections, for each bin of scores."""
        counted = [found for found in self.detections if found.is_counted]
        grouped = defaultdict(list)
        for found in counted:
            grouped[min(int(found.score * bins), bins - 1)].append(found)
        return [
            (
                float(np.mean([found.score for found in group])),
                float(np.mean([found.kind is Kind.CORRECT for found in group])),
                len(group),
            )
            for _, group in sorted(grouped.items())
        ]

    def precision_recall(self, category_id: int) -> np.ndarray | None:
        """Precision at recalls of 0, 0.01, ..., 1, at an IoU of 0.5; None without objects."""
        number = self._numbers().get(category_id)
        return _precisions(self._scores()[category_id], number) if number else None

    def _numbers(self) -> dict[int, int]:
        """Category id -> number of objects, where there are some."""
        return dict(Counter(truth.category_id for truth in self.objects))

    def _scores(self, repaired: Kind | None = None) -> dict[int, list[tuple[float, bool]]]:
        """Category id -> (score, whether it is correct) of each detection that counts."""
        scores: dict[int, list[tuple[float, bool]]] = defaultdict(list)
        for found in self.detections:
            if not found.is_counted:
                continue
            if found.kind is not repaired:
                scores[found.category_id].append((found.score, found.kind is Kind.CORRECT))
            elif found.kind in (Kind.CLASSIFICATION, Kind.LOCALISATION):
                truth = found.truth
                if truth.found is None and found is truth.repairable[0]:
                    scores[truth.category_id].append((found.score, True))
        return scores


def analyze_errors(
    coco_json: Mapping, detections: Sequence[Mapping], categories: Categories
) -> ErrorAnalysis:
    """Judge every detection and every object of a data set by the IoU of their masks.

    Args:
        coco_json: with "images" and sound "annotations".
        detections: COCO results with masks.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco_json["images"]}
    truths: dict[object, list[Truth]] = defaultdict(list)
    crowds: dict[object, list[Truth]] = defaultdict(list)
    for annotation in coco_json["annotations"]:
        image_id = annotation["image_id"]
        rle = as_rle(annotation["segmentation"], *sizes[image_id])
        kinds = crowds if annotation.get("iscrowd") else truths
        kinds[image_id].append(Truth(image_id, annotation["category_id"], rle))
    judged: dict[object, list[Found]] = defaultdict(list)
    for item in detections:
        judged[item["image_id"]].append(
            Found(item["image_id"], item["category_id"], item["score"], item["segmentation"])
        )
    for image_id, found in judged.items():
        found.sort(key=lambda item: -item.score)
        _judge(found, truths[image_id], crowds[image_id])
    everything = [item for image_id in sizes for item in judged[image_id]]
    everything.sort(key=lambda item: -item.score)
    for item in everything:
        if item.kind in (Kind.CLASSIFICATION, Kind.LOCALISATION):
            item.truth.repairable.append(item)
    objects = [truth for image_id in sizes for truth in truths[image_id]]
    return ErrorAnalysis(everything, objects, categories)


def _judge(detections: list[Found], truths: list[Truth], crowds: list[Truth]) -> None:
    """Set kind, IoU and object of the detections of one image, which are sorted."""
    masks = [found.segmentation for found in detections]
    ious = _ious(masks, truths, crowd=False)
    in_crowds = _ious(masks, crowds, crowd=True)
    # As COCO's evaluation: the most certain first, each takes the object that it overlaps most of
    # those that are left; what finds none is ignored in a crowd of its class.
    for found, overlaps, crowded in zip(detections, ious, in_crowds, strict=True):
        free = [
            (overlap, -number)
            for number, (overlap, truth) in enumerate(zip(overlaps, truths, strict=True))
            if truth.category_id == found.category_id and truth.found is None
        ]
        overlap, number = max(free, default=(0.0, 0))
        if overlap >= FOREGROUND_IOU:
            found.kind, found.iou, found.truth = Kind.CORRECT, float(overlap), truths[-number]
            found.truth.found = found
        elif any(
            overlap >= FOREGROUND_IOU and crowd.category_id == found.category_id
            for overlap, crowd in zip(crowded, crowds, strict=True)
        ):
            found.kind = Kind.IGNORED
    for found, overlaps in zip(detections, ious, strict=True):
        if found.kind is Kind.BACKGROUND and truths:
            found.kind, found.truth, found.iou = _cause(found, truths, overlaps)


def _cause(
    found: Found, truths: list[Truth], overlaps: np.ndarray
) -> tuple[Kind, Truth | None, float]:
    """Why a false positive is one."""
    same = np.array([truth.category_id == found.category_id for truth in truths])
    own, other = np.where(same, overlaps, 0), np.where(same, 0, overlaps)
    if BACKGROUND_IOU <= own.max() <= FOREGROUND_IOU:
        return Kind.LOCALISATION, truths[own.argmax()], float(own.max())
    if other.max() >= FOREGROUND_IOU:
        return Kind.CLASSIFICATION, truths[other.argmax()], float(other.max())
    if own.max() >= FOREGROUND_IOU:
        return Kind.DUPLICATE, None, float(own.max())
    if overlaps.max() <= BACKGROUND_IOU:
        return Kind.BACKGROUND, None, float(overlaps.max())
    return Kind.BOTH, None, float(overlaps.max())


def _ious(masks: list[Mapping], truths: list[Truth], crowd: bool) -> np.ndarray:
    """Float, shape (detections, objects)."""
    if not masks or not truths:
        return np.zeros((len(masks), len(truths)))
    of_truths = [truth.segmentation for truth in truths]
    return coco_mask.iou(masks, of_truths, [crowd] * len(truths))


def _mean_ap(scores: Mapping[int, list], numbers: Mapping[int, int]) -> float:
    values = [
        _precisions(scores[category_id], number).mean() if number else 0.0
        for category_id, number in numbers.items()
    ]
    return 100 * float(np.mean(values)) if values else float("nan")


def _precisions(scores: list[tuple[float, bool]], number: int) -> np.ndarray:
    """COCO's interpolated precision at 101 recalls. Float, shape (101,)."""
    if not scores:
        return np.zeros(len(RECALLS))
    order = np.argsort([-score for score, _ in scores], kind="stable")
    correct = np.cumsum(np.array([is_correct for _, is_correct in scores])[order])
    recall = correct / number
    precision = correct / (np.arange(len(scores)) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    position = np.searchsorted(recall, RECALLS, side="left")
    return np.append(precision, 0)[position]
