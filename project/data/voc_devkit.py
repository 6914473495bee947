"""Read PASCAL VOC's development kit: pictures with a map of instances and one of classes."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from project.data.checking.inspection import VOC_NAMES
from project.data.reading import PILLOW_ERRORS
from project.errors import UserError

VOID = 255  # the border between objects, and what is too hard to tell
_LISTS = "ImageSets/Segmentation"


@dataclass(frozen=True)
class VOCPicture:
    """A picture of the kit.

    Attributes:
        name: without extension.
        jpeg: the file's bytes.
        instances: 0 background, 1, 2, ... objects, :data:`VOID`. uint8, shape (H, W).
        classes: 0 background, 1..20 in the order of ``VOC_NAMES``, :data:`VOID`. Likewise.
    """

    name: str
    jpeg: bytes
    instances: np.ndarray
    classes: np.ndarray

    def objects(self) -> Iterator[tuple[int, np.ndarray]]:
        """Category id (1..20) and mask (bool, (H, W)) of each object; void pixels are in none.

        Raises:
            UserError: the map of classes does not say what an object is.
        """
        for number in np.unique(self.instances):
            if number in (0, VOID):
                continue
            mask = self.instances == number
            counts = np.bincount(self.classes[mask], minlength=VOID + 1)
            counts[[0, VOID]] = 0
            if not counts.any() or counts.argmax() > len(VOC_NAMES):
                raise UserError(f"{self.name}: SegmentationClass has no class for object {number}")
            yield int(counts.argmax()), mask


class VOCDevkit:
    """A kit of one year, in a folder or in the tar that VOC (or torchvision) downloads.

    Args:
        path: of the folder with ``JPEGImages``, of one around it, or of the tar.

    Raises:
        UserError: there is no kit with segmentations, or there are several.
    """

    def __init__(self, path: Path):
        self.path = path
        self._tar: tarfile.TarFile | None = None
        if path.is_dir():
            found = sorted(p.parent for p in path.glob("**/" + _LISTS))
            self._root = str(self._only([str(p.parent) for p in found]))
        elif path.is_file():
            try:
                self._tar = tarfile.open(path)  # noqa: SIM115  (read from as long as this lives)
                members = self._tar.getnames()
            except (tarfile.TarError, OSError, EOFError) as error:
                raise UserError(f"{path} is neither a folder nor a tar: {error}") from error
            ending = f"/{_LISTS}"
            self._root = self._only([m.removesuffix(ending) for m in members if m.endswith(ending)])
        else:
            raise UserError(f"there is no {str(path)!r}")

    def _only(self, roots: list[str]) -> str:
        if len(roots) != 1:
            which = f"there are several kits in it: {', '.join(roots)}" if roots else "none in it"
            raise UserError(
                f"{self.path}: name one VOC kit with JPEGImages, SegmentationObject,"
                f" SegmentationClass and {_LISTS}; {which}"
            )
        return roots[0]

    def _read(self, name: str) -> bytes:
        place = f"{self._root}/{name}"
        try:
            if self._tar is None:
                return Path(place).read_bytes()
            member = self._tar.extractfile(place)
            if member is None:
                raise KeyError(place)
            return member.read()
        except (OSError, KeyError, tarfile.TarError) as error:
            raise UserError(f"{self.path}: {name} is missing or damaged") from error

    def names(self, set_name: str) -> list[str]:
        """The pictures of ``ImageSets/Segmentation/<set_name>.txt``."""
        return self._read(f"{_LISTS}/{set_name}.txt").decode().split()

    def picture(self, name: str) -> VOCPicture:
        """One picture with its maps.

        Raises:
            UserError: a file is missing, or the maps have another size than the picture.
        """
        jpeg = self._read(f"JPEGImages/{name}.jpg")
        maps = [self._map(f"Segmentation{what}/{name}.png") for what in ("Object", "Class")]
        try:
            with Image.open(io.BytesIO(jpeg)) as picture:
                width, height = picture.size
        except PILLOW_ERRORS as error:
            raise UserError(f"{self.path}: JPEGImages/{name}.jpg is damaged") from error
        if any(one.shape != (height, width) for one in maps):
            raise UserError(f"{self.path}: the maps of {name} are not {width} x {height}")
        return VOCPicture(name, jpeg, *maps)

    def _map(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._read(name))
        try:
            with Image.open(content) as picture:
                mode, pixels = picture.mode, np.asarray(picture)
        except PILLOW_ERRORS as error:
            raise UserError(f"{self.path}: {name} is damaged") from error
        if mode != "P":
            raise UserError(f"{self.path}: {name} is no picture with a palette ({mode})")
        return pixels
