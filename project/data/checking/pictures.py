"""Read the headers of pictures: size, EXIF rotation, type; fast enough for a hundred thousand."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from iopath.common.file_io import get_cache_dir
from PIL import ExifTags, Image
from tqdm import tqdm

from project.errors import UserError

_ROTATES = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_COLOURS = ("1", "L", "P", "RGB")
_EXTENSIONS = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "BMP": (".bmp",)}
_CACHE_VERSION = 1
_SIMILAR_BITS = 3  # of 64
_WORTH_KEEPING = 1000  # pictures; so many headers are read in 0.1 s


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it.

    Attributes:
        width, height: in pixels, as shown: after the rotation that EXIF data ask for.
        rotated: whether they ask for one that exchanges width and height.
        kind, detail: why the picture cannot be used; None where it can.
        remarks: kind and detail of problems that do no harm.
    """

    width: int = 0
    height: int = 0
    rotated: bool = False
    kind: str | None = None
    detail: str = ""
    remarks: tuple[tuple[str, str], ...] = ()


def read_headers(
    folder: Path, file_names: Iterable[str], *, decode: bool = False, progress: bool = False
) -> dict[str, Header]:
    """The headers of those of ``file_names`` that are in ``folder``, or why there is none.

    Those of large folders are kept in the user's cache, and used as long as size and time of the
    file are the same.

    Args:
        decode: decode each picture to its end, which takes some hundred times as long.
    """
    names = set(file_names)
    cache = _HeaderCache(folder, decode)
    headers = {}
    present = dict(_listed(folder, names))
    by_lower_case: dict[str, str] = {}
    if len(present) < len(names):
        by_lower_case = {entry.name.lower(): entry.name for entry in os.scandir(folder)}
    for name in tqdm(sorted(names), desc="pictures", unit="", disable=not progress):
        if name in present:
            headers[name] = cache.get(name, present[name])
        elif name.lower() in by_lower_case:
            found = f"there is {by_lower_case[name.lower()]!r}"
            headers[name] = Header(kind="image-name-case", detail=found)
        else:
            headers[name] = Header(kind="image-missing")
    cache.save()
    return headers


def _listed(folder: Path, names: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    # One listing, for a stat of each name that is not there takes minutes on network disks.
    for entry in os.scandir(folder):
        if entry.name in names:
            try:
                yield entry.name, entry.stat()
            except OSError:  # a link to nowhere
                continue
    for name in names:
        if "/" in name or os.sep in name:
            try:
                yield name, (folder / name).stat()
            except OSError:
                continue


class _HeaderCache:
    """Headers of one folder, kept in a file of the user's cache directory."""

    def __init__(self, folder: Path, decode: bool):
        self.folder = folder
        self.decode = decode
        key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
        name = f"{key}-{'decoded' if decode else 'headers'}-{_CACHE_VERSION}.json"
        self.path = Path(get_cache_dir()) / "picture_headers" / name
        self.changed = False
        try:
            self.entries: dict[str, list] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.entries = {}

    def get(self, name: str, status: os.stat_result) -> Header:
        key = [status.st_size, status.st_mtime_ns]
        entry = self.entries.get(name)
        if entry is not None and entry[:2] == key:
            fields = entry[2]
            return Header(**{**fields, "remarks": tuple(map(tuple, fields.get("remarks", ())))})
        header = _read_header(self.folder / name, status, self.decode)
        default = asdict(Header())
        fields = {k: v for k, v in asdict(header).items() if v != default[k]}
        self.entries[name] = [*key, fields]
        self.changed = True
        return header

    def save(self) -> None:
        if not self.changed or len(self.entries) < _WORTH_KEEPING:
            return
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.entries))
            os.replace(temporary, self.path)
        except OSError:
            temporary.unlink(missing_ok=True)  # it is a cache: without it, it is read again


def _read_header(path: Path, status: os.stat_result, decode: bool) -> Header:
    if path.is_dir():
        return Header(kind="image-is-a-folder")
    if status.st_size == 0:
        return Header(kind="image-file-empty")
    try:
        with Image.open(path) as picture:
            remarks = tuple(_remarks(path, picture))
            width, height = picture.size
            rotated = "exif" in picture.info and _orientation(picture) in _ROTATES
            if decode:
                try:
                    picture.load()
                except (OSError, ValueError, SyntaxError) as error:
                    return Header(kind="image-truncated", detail=str(error))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's message repeats the path.
        reason = "" if "cannot identify" in str(error) else str(error)
        return Header(kind="image-unreadable", detail=reason)
    if rotated:
        width, height = height, width
    return Header(width, height, rotated, remarks=remarks)


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, KeyError):  # broken EXIF data say nothing
        return 1


def _remarks(path: Path, picture: Image.Image) -> Iterator[tuple[str, str]]:
    if picture.mode not in _COLOURS:
        yield "image-colours", picture.mode
    extensions = _EXTENSIONS.get(picture.format)
    if extensions and path.suffix.lower() not in extensions:
        yield "image-file-type", f"it is a {picture.format}"
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        yield "image-animated", f"{picture.n_frames} pictures"


def same_content(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Groups of files with the same bytes."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    for candidates in by_size.values():
        if len(candidates) < 2:
            continue
        by_hash: dict[bytes, list[Path]] = defaultdict(list)
        for path in candidates:
            by_hash[hashlib.blake2b(path.read_bytes()).digest()].append(path)
        yield from (group for group in by_hash.values() if len(group) > 1)


def difference_hash(path: Path) -> int:
    """64 bits that hardly change when a picture is scaled, compressed or lightened.

    The signs of the horizontal differences of a 9 x 8 thumbnail (dHash, Krawetz 2013).

    Raises:
        UserError: the picture cannot be decoded to its end.
    """
    try:
        with Image.open(path) as picture:
            thumbnail = picture.convert("L").resize((9, 8), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{path} cannot be decoded ({error}); python scripts/check_dataset.py --decode looks at"
            " all pictures"
        ) from error
    small = np.asarray(thumbnail, dtype=int)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def similar_pairs(hashes: Mapping[Path, int]) -> Iterator[tuple[Path, Path]]:
    """Pairs of pictures whose :func:`difference_hash` differs in at most 3 of 64 bits."""
    # Of four parts of 16 bits, one at least is the same.
    buckets: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path, value in hashes.items():
        if 4 < value.bit_count() < 60:  # flat pictures are all alike
            for part in range(4):
                buckets[part, value >> (16 * part) & 0xFFFF].append(path)
    found = set()
    for paths in buckets.values():
        for index, first in enumerate(paths):
            for second in paths[index + 1 :]:
                if (hashes[first] ^ hashes[second]).bit_count() <= _SIMILAR_BITS:
                    found.add((first, second))
    yield from sorted(found)
