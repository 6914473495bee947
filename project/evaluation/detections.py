"""Detections in COCO's result format, which is also that of a submission file."""

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from project.data.categories import Categories


def to_coco_results(instances: Instances, image_id: int, categories: Categories) -> list[dict]:
    """One picture's detections with the ids of its JSON.

    Args:
        instances: on the CPU, with ``pred_boxes`` (N, 4) XYXY in pixels of the picture, ``scores``
            (N,), ``pred_classes`` (N,) in 0..K-1 and ``pred_masks`` (N, H, W) bool.

    Returns:
        N of ``{"image_id", "bbox": [x, y, w, h], "score", "category_id", "segmentation":
        {"size": [h, w], "counts": compressed RLE as str}}``.
    """
    return [
        {
            "image_id": result["image_id"],
            "bbox": result["bbox"],
            "score": result["score"],
            "category_id": categories.ids[result["category_id"]],
            "segmentation": result["segmentation"],
        }
        for result in instances_to_coco_json(instances, image_id)
    ]
