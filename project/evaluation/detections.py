"""Detections in COCO's result format, which is also that of a submission file."""

from detectron2.structures import BoxMode, Instances

from project.data.categories import Categories
from project.data.segmentation import compressed_rle
from project.structures.pasted_masks import PastedMasks


def to_coco_results(instances: Instances, image_id: int, categories: Categories) -> list[dict]:
    """One picture's detections with the ids of its JSON.

    Args:
        instances: on the CPU, with ``pred_boxes`` (N, 4) XYXY in pixels of the picture, ``scores``
            (N,), ``pred_classes`` (N,) in 0..K-1 and ``pred_masks``, :class:`PastedMasks` or bool
            (N, H, W).

    Returns:
        N of ``{"image_id", "bbox": [x, y, w, h], "score", "category_id", "segmentation":
        {"size": [h, w], "counts": compressed RLE as str}}``.
    """
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    masks = instances.pred_masks
    if isinstance(masks, PastedMasks):
        rles = masks.to_rle()
    else:
        rles = [compressed_rle(mask.numpy()) for mask in masks]
    columns = (boxes.tolist(), instances.scores.tolist(), instances.pred_classes.tolist(), rles)
    return [
        {
            "image_id": image_id,
            "bbox": box,
            "score": score,
            "category_id": categories.ids[index],
            "segmentation": rle,
        }
        for box, score, index, rle in zip(*columns, strict=True)
    ]
