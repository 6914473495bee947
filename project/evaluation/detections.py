"""Detections in COCO's result format, which is also that of a submission file."""

import json
import os
from pathlib import Path

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from project.data.categories import Categories
from project.errors import UserError


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


def check_output_file(path: str | Path, overwrite: bool) -> None:
    """Raise :class:`UserError` now if ``path`` could not be written later.

    What stands there is not overwritten unless ``overwrite``.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already; choose another name or add --overwrite")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {str(path.parent)!r}")


def write_json(content: object, path: str | Path, indent: int | None = None) -> None:
    """Write ``content`` in one step: a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    os.replace(temporary, path)
