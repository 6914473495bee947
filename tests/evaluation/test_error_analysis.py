"""Errors have the causes, and cost what TIDE says; the AP is COCO's."""

import numpy as np
import pytest

from project.data.categories import Categories
from project.data.segmentation import compressed_rle
from project.evaluation.coco_metrics import evaluate_detections
from project.evaluation.error_analysis import ERRORS, Kind, analyze_errors
from tests.evaluation.test_metrics import CATEGORIES, ground_truth, noisy_detections

TWO = Categories((1, 5), ("a", "b"))


def rectangle(x: int, width: int = 20, **fields) -> dict:
    """On a picture of 40 x 200, from column x on."""
    mask = np.zeros((40, 200), dtype=bool)
    mask[5:35, x : x + width] = True
    return {
        "image_id": 3,
        "segmentation": compressed_rle(mask),
        "bbox": [x, 5, width, 30],
        **fields,
    }


def truth_of(*annotations: dict) -> dict:
    numbered = [{"iscrowd": 0, "id": i, **a} for i, a in enumerate(annotations, start=1)]
    return {
        "images": [{"id": 3, "file_name": "a.jpg", "height": 40, "width": 200}],
        "annotations": numbered,
        "categories": [{"id": 1, "name": "a"}, {"id": 5, "name": "b"}],
    }


@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_the_evaluation(seed):
    truth = ground_truth()
    detections = noisy_detections(truth, seed)
    expected = evaluate_detections(truth, detections, "segm", CATEGORIES)
    analysis = analyze_errors(truth, detections, CATEGORIES)
    assert analysis.ap50() == pytest.approx(expected.summary["AP50"], abs=1e-9)
    for category_id, name in CATEGORIES.to_mapping().items():
        curve = analysis.precision_recall(category_id)
        ap = expected.per_class[name]["AP50"]
        assert (curve is None) == np.isnan(ap)
        assert curve is None or 100 * curve.mean() == pytest.approx(ap)


def test_numbers_and_costs_are_those_of_tide():
    # Recorded from tidecv 1.0.1, TIDE().evaluate(..., mode=TIDE.MASK), on the same data: classes
    # with objects only, and no crowds, for there it computes another AP than COCO.
    truth = ground_truth(12)
    truth["annotations"][0]["iscrowd"] = 0
    present = {annotation["category_id"] for annotation in truth["annotations"]}
    detections = [*noisy_detections(truth, 3), *noisy_detections(truth, 4)]
    detections = [item for item in detections if item["category_id"] in present]
    analysis = analyze_errors(truth, detections, CATEGORIES)
    assert analysis.ap50() == pytest.approx(50.0342975474018)
    numbers = [sum(f.kind is kind for f in analysis.detections) for kind in ERRORS]
    numbers[-1] = len(analysis.missed())
    assert dict(zip(ERRORS, numbers, strict=True)) == {
        Kind.CLASSIFICATION: 12,
        Kind.LOCALISATION: 4,
        Kind.BOTH: 5,
        Kind.DUPLICATE: 23,
        Kind.BACKGROUND: 0,
        Kind.MISSED: 8,
    }
    costs = [round(analysis.cost(kind), 3) for kind in ERRORS]
    assert costs == [5.232, 8.824, 1.679, 2.98, 0.0, 9.666]


# What is detected, of an object of class 1 at 0 to 20 and one of class 5 at 100 to 120.
CAUSES = {
    Kind.CORRECT: rectangle(2, category_id=1),
    Kind.CLASSIFICATION: rectangle(98, category_id=1),
    Kind.LOCALISATION: rectangle(10, category_id=1),
    Kind.BOTH: rectangle(110, category_id=1),
    Kind.BACKGROUND: rectangle(60, category_id=1),
}


@pytest.mark.parametrize("kind", CAUSES)
def test_each_cause_is_told(kind):
    truth = truth_of(rectangle(0, category_id=1), rectangle(100, category_id=5))
    analysis = analyze_errors(truth, [{**CAUSES[kind], "score": 0.8}], TWO)
    (found,) = analysis.detections
    assert found.kind == kind
    assert (found.truth is not None) == (
        kind in (Kind.CORRECT, Kind.CLASSIFICATION, Kind.LOCALISATION)
    )
    missed = 1 if found.truth else 2
    assert len(analysis.missed()) == missed
    if kind is not Kind.CORRECT:
        wins = analysis.cost(kind) > 0
        assert wins == (kind in (Kind.CLASSIFICATION, Kind.LOCALISATION))


def test_the_second_detection_of_an_object_is_a_duplicate():
    truth = truth_of(rectangle(0, category_id=1))
    items = [rectangle(0, category_id=1, score=0.5), rectangle(2, category_id=1, score=0.9)]
    first, second = analyze_errors(truth, items, TWO).detections
    assert (first.kind, second.kind) == (Kind.CORRECT, Kind.DUPLICATE)
    assert first.score == 0.9 and first.truth.found is first


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong():
    crowd = rectangle(50, 100, category_id=1, iscrowd=1)
    truth = truth_of(rectangle(0, category_id=1), crowd)
    items = [rectangle(60, category_id=1, score=0.9), rectangle(60, category_id=5, score=0.8)]
    analysis = analyze_errors(truth, items, TWO)
    assert [found.kind for found in analysis.detections] == [Kind.IGNORED, Kind.BACKGROUND]
    assert len(analysis.objects) == 1
    assert analysis.confusion(0.0).sum() == 2


def test_repairing_all_of_one_error_wins_what_it_costs():
    truth = truth_of(rectangle(0, category_id=1), rectangle(100, category_id=1))
    items = [rectangle(0, category_id=1, score=0.9), rectangle(100, category_id=5, score=0.8)]
    analysis = analyze_errors(truth, items, TWO)
    repaired = analyze_errors(truth, [items[0], {**items[1], "category_id": 1}], TWO)
    assert repaired.ap50() - analysis.ap50() == pytest.approx(analysis.cost(Kind.CLASSIFICATION))
    assert repaired.ap50() == pytest.approx(100)


def test_the_threshold_has_the_largest_f1():
    truth = ground_truth()
    analysis = analyze_errors(truth, noisy_detections(truth, 1), CATEGORIES)

    def f1(threshold):
        kept = [f for f in analysis.detections if f.is_counted and f.score >= threshold]
        correct = sum(found.kind is Kind.CORRECT for found in kept)
        return 2 * correct / (len(kept) + len(analysis.objects))

    best = f1(analysis.best_threshold())
    assert best == max(f1(found.score) for found in analysis.detections) > 0


def test_confusion_counts_every_detection_and_every_object():
    truth = truth_of(rectangle(0, category_id=1), rectangle(100, category_id=5))
    items = [
        rectangle(0, category_id=1, score=0.9),
        rectangle(100, category_id=1, score=0.8),
        rectangle(60, category_id=5, score=0.7),
        rectangle(160, category_id=5, score=0.1),
    ]
    analysis = analyze_errors(truth, items, TWO)
    assert analysis.confusion(0.5).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert analysis.confusion(0.85).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert analysis.confusion(0.0).sum() == 4


def test_calibration_counts_every_detection_once():
    truth = ground_truth()
    analysis = analyze_errors(truth, noisy_detections(truth, 2), CATEGORIES)
    bins = analysis.calibration()
    counted = [found for found in analysis.detections if found.is_counted]
    assert sum(number for *_, number in bins) == len(counted)
    correct = sum(share * number for _, share, number in bins)
    assert correct == pytest.approx(sum(found.kind is Kind.CORRECT for found in counted))


def test_nothing_found_and_nothing_to_find():
    truth = truth_of(rectangle(0, category_id=1))
    analysis = analyze_errors(truth, [], TWO)
    assert analysis.ap50() == 0 and len(analysis.missed()) == 1
    assert analysis.best_threshold() == 0.5 and analysis.calibration() == []
    empty = analyze_errors(truth_of(), [rectangle(0, category_id=1, score=0.5)], TWO)
    assert np.isnan(empty.ap50()) and empty.detections[0].kind is Kind.BACKGROUND
