"""Read a COCO JSON, checked and repaired."""

import gc
import os
from functools import lru_cache
from pathlib import Path

from project.data.checking.inspection import Inspection, inspect_content
from project.data.checking.pictures import read_headers
from project.errors import UserError
from project.files import read_json


def read_coco_json(path: Path) -> dict:
    """The content of a COCO JSON as it is; kept in memory while the file does not change.

    Raises:
        UserError: the file cannot be read, is no JSON (cut off, say), or not of COCO's layout.
    """
    status = os.stat(path)
    return _read_coco_json(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _read_coco_json(path: str, size: int, mtime_ns: int) -> dict:
    was_enabled = gc.isenabled()
    gc.disable()  # it would look for cycles after every few hundred of a million new lists
    try:
        content = read_json(path)
    finally:
        if was_enabled:
            gc.enable()
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{path} is not in COCO format: it has no list of images")
    return content


def inspect_dataset(
    json_file: Path, image_root: Path, *, decode: bool = False, progress: bool = False
) -> Inspection:
    """A data set's problems, and its content after the remedies; kept in memory likewise.

    Args:
        decode, progress: see :func:`project.data.checking.pictures.read_headers`.

    Raises:
        UserError: see :func:`read_coco_json`.
    """
    status, folder = os.stat(json_file), os.stat(image_root)
    key = (status.st_size, status.st_mtime_ns, folder.st_mtime_ns)
    return _inspect_dataset(str(json_file), str(image_root), key, decode, progress)


@lru_cache(maxsize=8)
def _inspect_dataset(
    json_file: str, image_root: str, key: tuple, decode: bool, progress: bool
) -> Inspection:
    content = read_coco_json(Path(json_file))
    names = {
        image["file_name"]
        for image in content["images"]
        if isinstance(image, dict) and isinstance(image.get("file_name"), str)
    }
    headers = read_headers(Path(image_root), names, decode=decode, progress=progress)
    return inspect_content(content, headers)
