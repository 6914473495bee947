"""Read the headers of pictures: size, EXIF rotation, type; fast enough for a hundred thousand."""

import hashlib
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from iopath.common.file_io import get_cache_dir
from PIL import ExifTags, Image
from tqdm import tqdm

from project.data.reading import PILLOW_ERRORS, in_8_bits
from project.errors import UserError

_TURNS = (2, 3, 4)  # EXIF orientations that mirror a picture or turn it upside down,
_ROTATES = (5, 6, 7, 8)  # and those that exchange width and height
_COLOURS = ("1", "L", "P", "RGB")
_EXTENSIONS = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "BMP": (".bmp",)}
_CACHE_VERSION = 4
_SIMILAR_BITS = 3  # of 64
_WORTH_KEEPING = 1000  # pictures; so many headers are read in 0.1 s


@dataclass(frozen=True)
class Header:
    """What a picture's file says of it.

    Attributes:
        width, height: in pixels, as shown: after the rotation that EXIF data ask for.
        rotated: whether they ask for one that exchanges width and height.
        unclear: whether they ask for one that does not show in the size.
        kind, detail: why the picture cannot be used; None where it can.
        remarks: kind and detail of problems that do no harm.
    """

    width: int = 0
    height: int = 0
    rotated: bool = False
    unclear: bool = False
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
    try:
        present = dict(_listed(folder, names))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    by_plain_name: dict[str, str] = {}
    if len(present) < len(names):
        by_plain_name = {_nfc(entry.name).lower(): entry.name for entry in os.scandir(folder)}
    for name in tqdm(sorted(names), desc="pictures", unit="", disable=not progress):
        if name in present:
            headers[name] = cache.get(name, present[name])
        elif (found := by_plain_name.get(_nfc(name).lower(), name)) != name:
            kind = "image-name-accents" if _nfc(found) == _nfc(name) else "image-name-case"
            headers[name] = Header(kind=kind, detail=f"there is {found!r}")
        elif "\\" in name and (folder / name.replace("\\", "/")).is_file():
            headers[name] = Header(kind="image-name-backslash")
        else:
            headers[name] = Header(kind="image-missing")
    cache.save()
    return headers


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


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
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
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
        if header.kind is None:  # what is wrong may be the disk or its rights, and pass
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
            orientation = _orientation(picture)
            if decode:
                try:
                    picture.load()
                except PILLOW_ERRORS as error:
                    return Header(kind="image-truncated", detail=str(error))
    except PILLOW_ERRORS as error:
        # Pillow's message repeats the path.
        reason = "" if "cannot identify" in str(error) else str(error)
        return Header(kind="image-unreadable", detail=reason)
    rotated = orientation in _ROTATES
    unclear = orientation in _TURNS or (rotated and width == height)
    if rotated:
        width, height = height, width
    return Header(width, height, rotated, unclear, remarks=remarks)


def _orientation(picture: Image.Image) -> int:
    """As :func:`project.data.reading.read_image` takes it."""
    if picture.format == "TIFF":
        return 1  # Pillow's size is that after the rotation
    try:
        if picture.format in ("JPEG", "MPO"):
            exif = Image.Exif()  # OpenCV does not look into XMP data
            exif.load(picture.info.get("exif"))
        else:
            exif = Image.Image.getexif(picture)  # PNG's own decodes the picture
        return exif.get(ExifTags.Base.Orientation, 1)
    except PILLOW_ERRORS:  # broken EXIF data say nothing
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
            picture.draft("L", (72, 64))  # a JPEG need not be decoded in full
            thumbnail = in_8_bits(picture).convert("L").resize((9, 8), Image.Resampling.BOX)
    except PILLOW_ERRORS as error:
        raise UserError(
            f"{path} cannot be decoded ({error}); python scripts/check_dataset.py --decode looks at"
            " all pictures"
        ) from error
    small = np.asarray(thumbnail, dtype=int)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def similar_groups(hashes: Mapping[Path, int]) -> Iterator[list[Path]]:
    """Groups of pictures that look the same.

    Each is linked to the others by pictures whose :func:`difference_hash` differs in at most 3 of
    64 bits; pairs would be too many where a fixed camera took all of them.
    """
    # Flat pictures are all alike.
    hashes = {path: value for path, value in hashes.items() if 4 < value.bit_count() < 60}
    buckets: dict[tuple[int, int], set[Path]] = defaultdict(set)
    for path, value in hashes.items():
        for key in _quarters(value):
            buckets[key].add(path)
    grouped: set[Path] = set()
    for start in hashes:
        group = [] if start in grouped else [start]
        grouped.add(start)
        for path in group:  # which grows
            value = hashes[path]
            for key in _quarters(value):
                near = {p for p in buckets[key] if (hashes[p] ^ value).bit_count() <= _SIMILAR_BITS}
                buckets[key] -= near  # seen once is enough
                group += near - grouped
                grouped |= near
        if len(group) > 1:
            yield sorted(group)


def _quarters(value: int) -> list[tuple[int, int]]:
    """Four parts of 16 bits; of two values that differ in 3 bits, one at least is the same."""
    return [(part, value >> (16 * part) & 0xFFFF) for part in range(4)]
