"""Detections in COCO's result format, which is also that of a submission file."""

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as coco_mask

from project.data.categories import Categories
from project.data.segmentation import compressed_rle
from project.structures.detections import Detections
from project.structures.lazy_masks import LazyMasks
from project.structures.pasted_masks import PastedMasks


def to_detections(instances: Instances, categories: Categories) -> Detections:
    """What a model has found in a picture, with the ids and names of its JSON.

    Args:
        instances: ``pred_boxes`` (N, 4) XYXY in pixels of the picture, ``scores`` (N,),
            ``pred_classes`` (N,) in 0..K-1 and, if there are masks, ``pred_masks``,
            :class:`PastedMasks` or bool (N, H, W).
    """
    instances = instances.to("cpu")
    classes = instances.pred_classes.numpy()
    masks = None
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        masks = masks.numpy() if isinstance(masks, PastedMasks) else np.asarray(masks)
    return Detections(
        instances.pred_boxes.tensor.float().numpy(),
        instances.scores.float().numpy(),
        np.array(categories.ids, dtype=np.int64)[classes],
        tuple(categories.names[index] for index in classes),
        masks,
        instances.image_size,
    )


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


def share_of_empty_masks(detections: Sequence[Mapping], number: int = 100) -> float:
    """The share of masks without a pixel among those of the ``number`` most certain detections.

    Args:
        detections: COCO results with masks, at least one.
    """
    best = heapq.nlargest(number, detections, key=lambda detection: detection["score"])
    areas = coco_mask.area([detection["segmentation"] for detection in best])
    return float((areas == 0).mean())
