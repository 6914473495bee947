"""Read what a submission is checked against, and submissions that are known to be sound."""

from pathlib import Path

from project.data.checking.masks import inspect_mask
from project.errors import UserError
from project.files import read_json
from project.submission.checking import REQUIRED


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
        mask = detection["segmentation"]
        size = mask.get("size") if isinstance(mask, dict) else None
        broken = not isinstance(size, list) or len(size) != 2
        if broken or any(kind != "mask-empty" for kind, _ in inspect_mask(mask, *size).problems):
            raise UserError(
                f"{path}: the mask of detection {index} is broken; scripts/check_submission.py says"
                " more"
            )
    return submission
