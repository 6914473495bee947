"""Write generated pictures and their COCO JSON in the tiny-VOC layout."""

import json
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from project.data.segmentation import compressed_rle, mask_fields, polygons, uncompressed_rle
from project.data.synthetic.scene import Scene, render_scene
from project.data.synthetic.shapes import CLASS_NAMES
from project.errors import UserError
from project.files import make_folder, write_json

VERSION = 1
_JPEG_QUALITY = 92
_JSON_FILES = ("pascal_train.json", "test.json", "test_annotations.json")
_RLE_SHARE = 8  # every eighth mask without holes is stored as RLE too
_ID_MODULUS, _ID_FACTOR = 9973, 6151  # primes: a permutation of 0..9972


def generate_dataset(
    root: str | Path,
    num_train: int = 400,
    num_test: int = 80,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write ``train_images/``, ``test_images/``, ``pascal_train.json``, ``test.json`` (without
    annotations) and ``test_annotations.json`` (its ground truth) into ``root``.

    A root that holds just this data set already is left as it is.

    Raises:
        UserError: a number is out of range, ``root`` is no folder, or it holds another data set and
            ``overwrite`` is not set.
    """
    root = Path(root)
    _check_numbers(num_train, num_test, seed)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file; choose a folder to write the pictures to")
    recipe = {"version": VERSION, "num_train": num_train, "num_test": num_test, "seed": seed}
    marker = root / "generator.json"
    if _is_complete(root, marker, recipe):
        return
    if any((root / name).exists() for name in _JSON_FILES):
        if not overwrite:
            raise UserError(
                f"{root} holds another data set, or one that lost files;"
                " choose another folder or --overwrite"
            )
        marker.unlink(missing_ok=True)
    total = num_train + num_test
    with tqdm(total=total, desc="generating", unit="picture", disable=not progress) as bar:
        train = _write_split(root / "train_images", seed, "train", num_train, bar)
        test = _write_split(root / "test_images", seed, "test", num_test, bar)
    write_json(train, root / "pascal_train.json")
    write_json(test, root / "test_annotations.json")
    write_json({k: test[k] for k in ("images", "categories")}, root / "test.json")
    write_json(recipe, marker)  # last: without it the data set is not complete


def _check_numbers(num_train: int, num_test: int, seed: int) -> None:
    if num_train < 0 or num_test < 0:
        raise UserError(f"{num_train} training and {num_test} test pictures: choose 0 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed}: choose one from 0 to {2**32 - 1}")


def _is_complete(root: Path, marker: Path, recipe: dict) -> bool:
    """Whether ``root`` holds the data set of this recipe, and every picture of it."""
    try:
        if json.loads(marker.read_text()) != recipe:
            return False
    except (OSError, ValueError):
        return False  # no marker, or a damaged one
    if not all((root / name).is_file() for name in _JSON_FILES):
        return False
    counts = (("train", recipe["num_train"]), ("test", recipe["num_test"]))
    return all(
        (root / f"{split}_images" / _file_name(split, index)).is_file()
        for split, count in counts
        for index in range(count)
    )


def _file_name(split: str, index: int) -> str:
    return f"{split}_{index:06d}.jpg"


def _write_split(folder: Path, seed: int, split: str, count: int, bar: tqdm) -> dict:
    make_folder(folder)
    images, annotations = [], []
    for index in range(count):
        scene = render_scene(seed, split, index)
        image = image_record(scene, split, index)
        images.append(image)
        annotations += annotation_records(scene, image["id"])
        path = folder / image["file_name"]
        bgr = np.ascontiguousarray(scene.image[..., ::-1])
        if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise UserError(f"{path} could not be written")
        bar.update()
    return {"images": images, "annotations": annotations, "categories": category_records()}


def image_record(scene: Scene, split: str, index: int) -> dict:
    """COCO's entry of a picture. Its id depends on split and index only; ids have gaps."""
    height, width = scene.image.shape[:2]
    block, place = divmod(index, _ID_MODULUS)
    number = block * _ID_MODULUS + place * _ID_FACTOR % _ID_MODULUS
    image_id = 2 * number + (1 if split == "train" else 2)
    file_name = _file_name(split, index)
    return {"file_name": file_name, "height": height, "width": width, "id": image_id}


def annotation_records(scene: Scene, image_id: int) -> list[dict]:
    """COCO's entries of the instances: polygons, and RLE of both kinds where there are holes."""
    records = []
    for number, (mask, category_id) in enumerate(
        zip(scene.masks, scene.category_ids.tolist(), strict=True), start=1
    ):
        annotation_id = 10 * image_id + number
        outline = None if annotation_id % _RLE_SHARE == 0 else polygons(mask)
        if outline is None:
            encode = uncompressed_rle if annotation_id % 2 else compressed_rle
            outline = encode(mask)
        records.append(
            {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category_id,
                **mask_fields(mask, outline),
            }
        )
    return records


def category_records() -> list[dict]:
    """COCO's entries of the twenty categories, ids from 1 in alphabetical order."""
    return [
        {"supercategory": name, "name": name, "id": number}
        for number, name in enumerate(CLASS_NAMES, start=1)
    ]
