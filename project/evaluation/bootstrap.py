"""How much of a difference in AP is chance? The bootstrap over pictures (Efron 1979)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from project.data.categories import Categories
from project.evaluation.coco_metrics import evaluate_detections
from project.evaluation.coco_results import by_image


def resampled_precision(
    coco_json: Mapping,
    submissions: Sequence[Sequence[Mapping]],
    iou_type: str,
    categories: Categories,
    samples: Iterable[int],
) -> np.ndarray:
    """The AP of each submission on pictures that are drawn anew, with replacement.

    All submissions are judged on the same draws, so that their differences are paired.

    Args:
        coco_json: content of a COCO JSON with annotations.
        submissions: COCO results with its ids.
        iou_type: "bbox" or "segm".
        samples: the seed of each draw.

    Returns:
        In percent, shape (draws, submissions); NaN where a draw has no annotations.
    """
    images = coco_json["images"]
    annotations, *results = (by_image(items) for items in (coco_json["annotations"], *submissions))
    rows = []
    for seed in samples:
        drawn = np.random.default_rng(seed).integers(0, len(images), len(images))
        originals = [images[index] for index in drawn]
        sample = {
            **coco_json,
            "images": [{**image, "id": i} for i, image in enumerate(originals, start=1)],
            "annotations": _of_draws(annotations, originals),
        }
        rows.append(
            [
                evaluate_detections(
                    sample, _of_draws(found, originals), iou_type, categories
                ).summary["AP"]
                for found in results
            ]
        )
    return np.array(rows)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a statistic's values over draws; NaN is left out."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _of_draws(items: Mapping, originals: Sequence[Mapping]) -> list[dict]:
    """What belongs to each drawn picture, under the picture's new id, its place in the draw."""
    return [
        {**item, "image_id": i}
        for i, image in enumerate(originals, start=1)
        for item in items.get(image["id"], [])
    ]
