"""Output files: checked before the work that fills them, written in one step."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from project.errors import UserError


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
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: the folder {str(path.parent)!r} may not be written to")


def check_picture_file(path: str | Path) -> None:
    """Raise :class:`UserError` now if no picture could be written under the name ``path``."""
    import cv2  # here, because most of what writes files draws nothing

    # Not the whole name: OpenCV crashes where it is no UTF-8.
    if not cv2.haveImageWriter(f"x{Path(path).suffix}"):
        raise UserError(f"{path}: pictures of this type cannot be written; end the name in .png")


def require_new_folder(path: Path) -> None:
    """Raise :class:`UserError` unless ``path`` is a folder that is not there yet, or is empty.

    Nor if it could not be made.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is not an empty folder; choose one that is not there yet")
    place = next(x for x in (path, *path.absolute().parents) if x.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "may not be written to" if place.is_dir() else "is a file"
        raise UserError(f"{path} cannot be made: {place} {why}")


def make_folder(path: str | Path, name: str = "") -> None:
    """Make a folder, and those around it, if need be.

    Args:
        name: of the option or key that says so.

    Raises:
        UserError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file has that name" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"{name} {str(path)!r} cannot be made: {reason}".lstrip()) from error


def read_json(path: str | Path) -> object:
    """The content of a JSON file.

    Raises:
        UserError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no text
        raise UserError(f"{path} is not valid JSON (cut off?): {error}") from error


def write_json(content: object, path: str | Path, indent: int | None = None) -> None:
    """Write ``content`` in one step: a reader sees the old file or the whole new one."""
    write_text(json.dumps(content, indent=indent), path)


def sha256_of(path: str | Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(text: str, path: str | Path) -> None:
    """Write a text in one step, as :func:`write_json`; on a full disk the old file stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # it may be that nothing can be changed there
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
