"""A COCO JSON as Detectron2's list of records."""

from collections.abc import Mapping
from pathlib import Path

from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from project.data.categories import Categories
from project.data.coco_json import inspect_dataset


def coco_records(json_file: Path, image_root: Path, categories: Categories) -> list[dict]:
    """Detectron2's standard records, with the model's classes as ``category_id``.

    What has errors is left out; :func:`project.data.datasets.require_sound` refuses it before.
    Detectron2's own reader would number the categories of each JSON by themselves, and a test set
    may lack some.
    """
    content = inspect_dataset(json_file, image_root).content
    contiguous_ids = categories.contiguous_ids
    annotations: dict[object, list[dict]] = {image["id"]: [] for image in content["images"]}
    for annotation in content.get("annotations", []):
        annotations[annotation["image_id"]].append(
            {
                "iscrowd": annotation["iscrowd"],
                # Detectron2 rounds down boxes of integers when it resizes them.
                "bbox": [float(value) for value in annotation["bbox"]],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": contiguous_ids[annotation["category_id"]],
                "segmentation": _compressed(annotation["segmentation"]),
            }
        )
    return [
        {
            "file_name": str(image_root / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": annotations[image["id"]],
        }
        for image in content["images"]
    ]


def _compressed(segmentation: list | Mapping) -> list | Mapping:
    """Polygons as they are; an RLE as pycocotools decodes it."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return segmentation
