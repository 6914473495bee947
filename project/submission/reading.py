"""Read what a submission is checked against, and submissions that are known to be sound."""

from pathlib import Path

from project.data.checking.masks import inspect_mask, is_number
from project.errors import UserError
from project.files import read_json
from project.submission.checking import REQUIRED, is_id, is_size, size_of


def read_test_json(path: Path) -> dict:
    """A COCO JSON with images and categories, and sizes of the images.

    Raises:
        UserError: there is no such file, or it is something else.
    """
    content = read_json(path)
    for key, fields in (
        ("images", {"id", "file_name", "height", "width"}),
        ("categories", {"id", "name"}),
    ):
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(
            isinstance(record, dict) and fields <= record.keys() for record in records
        ):
            raise UserError(
                f"{path} is no COCO JSON: it needs {key} with {', '.join(sorted(fields))}"
            )
    for image in content["images"]:
        if not (is_id(image["id"]) and is_size(image["height"]) and is_size(image["width"])):
            raise UserError(
                f"{path}: image {image['id']!r} of {image['width']!r} x {image['height']!r} pixels;"
                " an id is a whole number or a text, and sizes are whole numbers above 0"
            )
    for category in content["categories"]:
        if not is_id(category["id"], int):
            raise UserError(f"{path}: category id {category['id']!r} is no whole number")
    return content


def read_submission(path: Path) -> list[dict]:
    """A JSON list of COCO results with masks.

    Raises:
        UserError: there is no such file, or it is something else.
    """
    submission = read_json(path)
    if not isinstance(submission, list):
        raise UserError(f"{path} is no submission: it is no list of detections")
    for index, detection in enumerate(submission):
        if not isinstance(detection, dict) or any(key not in detection for key in REQUIRED):
            raise UserError(f"{path}: detection {index} lacks one of {', '.join(REQUIRED)}")
        if not (
            is_id(detection["image_id"])
            and is_id(detection["category_id"], int)
            and is_number(detection["score"])
        ):
            raise UserError(
                f"{path}: detection {index} has an image_id, category_id or score of a wrong type;"
                " scripts/check_submission.py says more"
            )
        mask = detection["segmentation"]
        size = size_of(mask)
        if (
            size is None
            or not isinstance(mask.get("counts"), str)
            or any(kind != "mask-empty" for kind, _ in inspect_mask(mask, *size).problems)
        ):
            raise UserError(
                f"{path}: the mask of detection {index} is broken; scripts/check_submission.py says"
                " more"
            )
    return submission
