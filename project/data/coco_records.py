"""A COCO JSON as Detectron2's list of records."""

from pathlib import Path

from detectron2.data.datasets import load_coco_json

from project.data.categories import Categories
from project.errors import UserError


def coco_records(json_file: Path, image_root: Path, categories: Categories) -> list[dict]:
    """Detectron2's standard records, with the model's classes as ``category_id``.

    Detectron2 reads the JSON (polygons, RLE of both kinds, crowd); the ids are mapped here, since
    it would number the categories of each JSON by themselves, and a test set may lack some.

    Raises:
        UserError: the JSON lacks what a record needs, or names an unknown category.
    """
    try:
        records = load_coco_json(str(json_file), str(image_root))
    except (KeyError, AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"{json_file} is not in COCO format: {type(error).__name__} {error}"
        ) from error
    contiguous_ids = categories.contiguous_ids
    for record in records:
        for annotation in record["annotations"]:
            category_id = annotation["category_id"]
            if category_id not in contiguous_ids:
                raise UserError(
                    f"{json_file}: an annotation of image {record['image_id']} has category"
                    f" {category_id}, which no category has"
                )
            annotation["category_id"] = contiguous_ids[category_id]
    return records
