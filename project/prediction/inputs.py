"""The pictures that a user names: files, folders, globs, videos."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from project.data.reading import read_image
from project.errors import UserError

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_FRAME = re.compile(r"(.*)_\d{6,}", re.DOTALL)  # what Source.name_of gives


@dataclass(frozen=True)
class Source:
    """A picture or a video.

    Attributes:
        path: of the file.
        name: under which results are written; unique, may have folders, without the suffix.
        is_video: whether it has frames.
    """

    path: Path
    name: str
    is_video: bool

    def name_of(self, frame: int) -> str:
        """Under which the results of one frame are written."""
        return f"{self.name}_{frame:06d}" if self.is_video else self.name

    def frames(self) -> Iterator[np.ndarray]:
        """The picture, or the video's pictures in turn: RGB, uint8, shape (H, W, 3).

        Raises:
            UserError: the file cannot be read.
        """
        if not self.is_video:
            yield read_image(self.path, "RGB")
            return
        capture = self._open()
        try:
            found, frame = capture.read()
            if not found:
                raise UserError(f"{self.path} cannot be read (it is no video)")
            while found:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                found, frame = capture.read()
        finally:
            capture.release()

    def count(self) -> int:
        """How many pictures it has, as far as the file says; 1 where it cannot be read."""
        if not self.is_video:
            return 1
        try:
            return max(int(self._property(cv2.CAP_PROP_FRAME_COUNT)), 1)
        except UserError:
            return 1

    def frames_per_second(self) -> float:
        """Of a video; 25 where it does not say."""
        return self._property(cv2.CAP_PROP_FPS) or 25.0

    def _property(self, number: int) -> float:
        capture = self._open()
        value = capture.get(number)
        capture.release()
        return value

    def _open(self) -> cv2.VideoCapture:
        require_utf8_name(self.path)
        return cv2.VideoCapture(str(self.path))


def require_utf8_name(path: Path) -> None:
    """Raise :class:`UserError` where OpenCV, which reads and writes videos, would crash."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{str(path)!r}: the name of a video must be in UTF-8; rename it, or its folder"
        ) from None


def find_sources(paths: Iterable[str], output: Path | None = None) -> list[Source]:
    """The pictures and videos of ``paths``, each once, in order.

    Args:
        paths: files; folders, whose pictures and videos are found at any depth; globs.
        output: a folder in which none are looked for when a folder around it is named, or a glob.

    Raises:
        UserError: nothing is there under a name.
    """
    found: dict[Path, str] = {}
    for path in paths:
        for file, name in _find(path, output):
            found.setdefault(file, name)
    if not found:
        raise UserError("no pictures are named")
    names = _distinct(found)
    return [Source(file, names[file], _is_video(file)) for file in found]


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS


def _find(path: str, output: Path | None) -> list[tuple[Path, str]]:
    """The files under one name, each with its own name below it."""
    if os.path.isfile(path):
        return [(Path(path), Path(path).name)]
    if os.path.isdir(path):
        files = _find_in_folder(path, output)
        if not files:
            raise UserError(f"{path}: there are no pictures in that folder")
        return files
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise UserError(f"{path}: there is no such file or folder, and nothing matches it")
    found = [match for match in matches if os.path.isfile(match) or os.path.isdir(match)]
    if not found:
        raise UserError(f"{path}: that is no file or folder, or a link to nothing")
    base = os.path.join("", *takewhile(lambda part: not glob.has_magic(part), Path(path).parts))
    if output is not None and not _is_below(base, output):
        found = [match for match in found if not _is_below(match, output)]
    items = []
    for match in found:
        items += _find_in_folder(match, output) if os.path.isdir(match) else _find(match, output)
    if not items:
        raise UserError(f"{path}: there are no pictures in what matches it")
    return items


def _is_below(path: str, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _find_in_folder(folder: str, output: Path | None) -> list[tuple[Path, str]]:
    return [
        (file, file.relative_to(folder).as_posix())
        for file in sorted(_files_below(folder, output))
        if file.suffix.lower() in (*PICTURES, *VIDEOS) and file.is_file()
    ]


def _files_below(folder: str, output: Path | None) -> Iterator[Path]:
    """The files at any depth, also behind links, but for what macOS keeps beside each (``._*``)."""
    seen = {os.path.realpath(path) for path in (folder, output) if path is not None}
    for place, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names if not name.startswith("._"))
        for name in sorted(folders):
            target = os.path.realpath(os.path.join(place, name))
            if target in seen:  # a link may lead back
                folders.remove(name)
            seen.add(target)


def _distinct(names: dict[Path, str]) -> dict[Path, str]:
    """Names without suffixes, but where two would be one, or that of a frame."""
    taken: set[str] = set()
    videos: set[str] = set()

    def is_free(name: str) -> bool:
        frame = _FRAME.fullmatch(name)
        return name not in taken and not (frame and frame[1] in videos)

    result = {}
    # Videos first, so that the names of all frames are known.
    for path, name in sorted(names.items(), key=lambda item: not _is_video(item[0])):
        candidates = [os.path.splitext(name)[0], name]
        number = 2
        while not is_free(candidates[0]):
            candidates = candidates[1:] or [f"{name}-{number}"]
            number += 1
        taken.add(candidates[0])
        if _is_video(path):
            videos.add(candidates[0])
        result[path] = candidates[0]
    return result
