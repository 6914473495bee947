"""The pictures that a user names: files, folders, globs, videos."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from project.data.reading import read_image
from project.errors import UserError

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


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

    def frames(self) -> Iterator[np.ndarray]:
        """The picture, or the video's pictures in turn: RGB, uint8, shape (H, W, 3).

        Raises:
            UserError: the file cannot be read.
        """
        if not self.is_video:
            yield read_image(self.path, "RGB")
            return
        capture = cv2.VideoCapture(str(self.path))
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
        """How many pictures it has, as far as the file says."""
        return max(int(self._property(cv2.CAP_PROP_FRAME_COUNT)), 1) if self.is_video else 1

    def frames_per_second(self) -> float:
        """Of a video; 25 where it does not say."""
        return self._property(cv2.CAP_PROP_FPS) or 25.0

    def _property(self, number: int) -> float:
        capture = cv2.VideoCapture(str(self.path))
        value = capture.get(number)
        capture.release()
        return value


def find_sources(paths: Iterable[str]) -> list[Source]:
    """The pictures and videos of ``paths``, each once, in order.

    Args:
        paths: files; folders, whose pictures and videos are found at any depth; globs.

    Raises:
        UserError: nothing is there under a name.
    """
    found: dict[Path, str] = {}
    for path in paths:
        for file, name in _find(path):
            found.setdefault(file, name)
    if not found:
        raise UserError("no pictures are named")
    names = _distinct(found)
    return [Source(file, names[file], file.suffix.lower() in VIDEOS) for file in found]


def _find(path: str) -> list[tuple[Path, str]]:
    """The files under one name, each with its own name below it."""
    if os.path.isfile(path):
        return [(Path(path), Path(path).name)]
    if os.path.isdir(path):
        files = [
            (file, file.relative_to(path).as_posix())
            for file in sorted(Path(path).rglob("*"))
            if file.suffix.lower() in (*PICTURES, *VIDEOS) and file.is_file()
        ]
        if not files:
            raise UserError(f"{path}: there are no pictures in that folder")
        return files
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise UserError(f"{path}: there is no such file or folder, and nothing matches it")
    return [item for match in matches for item in _find(match)]


def _distinct(names: dict[Path, str]) -> dict[Path, str]:
    """Names without suffixes, but where two would be one."""
    taken: set[str] = set()
    result = {}
    for path, name in names.items():
        candidates = [os.path.splitext(name)[0], name]
        number = 2
        while candidates[0] in taken:
            candidates = candidates[1:] or [f"{name}-{number}"]
            number += 1
        taken.add(candidates[0])
        result[path] = candidates[0]
    return result
