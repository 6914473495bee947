"""Parts of the training set: some of its images, with their annotations, as a COCO JSON again."""

from collections.abc import Container
from pathlib import Path

from project.data.checking.report import require_no_errors
from project.data.coco_json import inspect_dataset
from project.data.layout import DatasetFiles, tiny_voc_files
from project.errors import UserError


def training_set(root: Path) -> tuple[DatasetFiles, dict]:
    """Where the training set of a root is, and its content.

    Raises:
        UserError: it is not there, or has errors.
    """
    files = tiny_voc_files(root)["tiny_voc_train"]
    if not files.json_file.is_file() or not files.image_root.is_dir():
        raise UserError(f"{root} has no {files.json_file.name} with {files.image_root.name}/")
    inspection = inspect_dataset(files.json_file, files.image_root, progress=True)
    require_no_errors(inspection, files.json_file)
    return files, inspection.content


def part_of(content: dict, image_ids: Container) -> dict:
    """A COCO JSON's content with these images only."""
    return {
        **content,
        "images": [x for x in content["images"] if x["id"] in image_ids],
        "annotations": [x for x in content.get("annotations", []) if x["image_id"] in image_ids],
    }


def classes_of_images(content: dict) -> dict[object, set]:
    """Image id -> the ids of the categories that it shows."""
    classes: dict[object, set] = {image["id"]: set() for image in content["images"]}
    for annotation in content.get("annotations", []):
        classes[annotation["image_id"]].add(annotation["category_id"])
    return classes
