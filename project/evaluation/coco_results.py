"""Detections in COCO's result format, which is also that of a submission file."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pycocotools import mask as coco_mask

from project.data.segmentation import compressed_rle
from project.runtime.detections import Detections
from project.runtime.lazy_masks import LazyMasks


def to_coco_results(detections: Detections, image_id: int | str) -> list[dict]:
    """One picture's detections as COCO results.

    Returns:
        N of ``{"image_id", "bbox": [x, y, w, h], "score", "category_id"}`` and, if there are masks,
        ``"segmentation": {"size": [h, w], "counts": compressed RLE as str}``.
    """
    boxes = detections.boxes_xyxy.copy()
    boxes[:, 2:] -= boxes[:, :2]
    columns = boxes.tolist(), detections.scores.tolist(), detections.category_ids.tolist()
    results = [
        {"image_id": image_id, "bbox": box, "score": score, "category_id": category_id}
        for box, score, category_id in zip(*columns, strict=True)
    ]
    masks = detections.masks
    if masks is not None:
        is_lazy = isinstance(masks, LazyMasks)
        rles = masks.to_rle() if is_lazy else [compressed_rle(mask) for mask in masks]
        for result, rle in zip(results, rles, strict=True):
            result["segmentation"] = rle
    return results


def by_image(items: Iterable[Mapping]) -> dict[object, list[Mapping]]:
    """Image id -> those of COCO results or annotations that are of it; none for any other id."""
    grouped: dict[object, list[Mapping]] = defaultdict(list)
    for item in items:
        grouped[item["image_id"]].append(item)
    return grouped


def share_of_empty_masks(detections: Sequence[Mapping], number: int = 100) -> float:
    """The share of masks without a pixel among those of the ``number`` most certain detections.

    Args:
        detections: COCO results with masks, at least one.
    """
    best = heapq.nlargest(number, detections, key=lambda detection: detection["score"])
    areas = coco_mask.area([detection["segmentation"] for detection in best])
    return float((areas == 0).mean())
