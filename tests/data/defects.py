"""Data sets of which each has one defect, by the kind that must be found."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from project.data.segmentation import compressed_rle, uncompressed_rle

HEIGHT, WIDTH = 40, 60
SQUARE = [10, 10, 30, 10, 30, 25, 10, 25]
EXIF_ORIENTATION = 0x0112


def box_mask(left: int = 10, top: int = 10, right: int = 30, bottom: int = 25) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def annotation(number: int, image: int, segmentation: object = None) -> dict:
    return {
        **{"id": number, "image_id": image, "category_id": 1 + number % 2, "iscrowd": 0},
        **{"segmentation": segmentation or [list(SQUARE)], "bbox": [10, 10, 20, 15], "area": 300},
    }


def whole_content() -> dict:
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)
        ],
        "annotations": [
            annotation(1, 1),
            annotation(2, 2, uncompressed_rle(box_mask())),
            annotation(3, 3, compressed_rle(box_mask())),
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in (1, 2, 3):
        noise = np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")


# ---- the corpus: each changes one thing of image 1 or annotation 1, and says what must be found

Change = Callable[[dict, Path], object]
CORPUS: dict[str, tuple[str, Change]] = {}


def defect(kind: str, name: str = "") -> Callable[[Change], Change]:
    def remember(change: Change) -> Change:
        CORPUS[name or kind] = (kind, change)
        return change

    return remember


def of_annotation(kind: str, key: str, value: object, name: str = "") -> None:
    """The annotation's ``key`` becomes ``value``; without it for the value ``...``."""

    def change(content: dict, folder: Path) -> None:
        first = content["annotations"][0]
        first.pop(key) if value is ... else first.update({key: value})

    defect(kind, name)(change)


def of_image(kind: str, key: str, value: object, name: str = "") -> None:
    def change(content: dict, folder: Path) -> None:
        first = content["images"][0]
        first.pop(key) if value is ... else first.update({key: value})

    defect(kind, name)(change)


def of_rle(kind: str, rle: dict, name: str = "") -> None:
    of_annotation(kind, "segmentation", rle, name)


def picture(kind: str, name: str = "") -> Callable[[Callable[[Path], object]], None]:
    def remember(change: Callable[[Path], object]) -> None:
        defect(kind, name)(lambda content, folder: change(folder / "1.png"))

    return remember


NAN, INFINITY = float("nan"), float("inf")
for key, value in {
    "segmentation": ("mask-missing", ...),
    "image_id": ("annotation-image-missing", ...),
    "category_id": ("annotation-category-missing", ...),
    "id": ("annotation-id-missing", ...),
    "iscrowd": ("crowd-missing", ...),
    "area": ("area-missing", ...),
    "bbox": ("bbox-missing", ...),
}.items():
    of_annotation(value[0], key, value[1])
of_annotation("annotation-image-unknown", "image_id", 99)
of_annotation("annotation-image-unknown", "image_id", [1], "image_id is a list")
of_annotation("annotation-image-text", "image_id", "1")
of_annotation("annotation-category-unknown", "category_id", 7)
of_annotation("annotation-category-text", "category_id", "1")
of_annotation("annotation-id-zero", "id", 0)
of_annotation("annotation-id-twice", "id", 2)
of_annotation("annotation-id-type", "id", "one")
of_annotation("crowd-invalid", "iscrowd", "yes")
of_annotation("crowd-invalid", "iscrowd", True, "iscrowd is true")
of_annotation("crowd-polygon", "iscrowd", 1)
of_annotation("area-invalid", "area", -3)
of_annotation("area-invalid", "area", NAN, "area is NaN")
of_annotation("area-differs", "area", 3000)
of_annotation("bbox-shape", "bbox", [10, 10, 20])
of_annotation("bbox-not-numbers", "bbox", [10, 10, "20", 15])
of_annotation("bbox-nan", "bbox", [10, NAN, 20, 15])
of_annotation("bbox-empty", "bbox", [10, 10, 0, 15])
of_annotation("bbox-empty", "bbox", [10, 10, 20, -15], "bbox of negative height")
of_annotation("bbox-outside", "bbox", [70, 10, 20, 15])
of_annotation("bbox-partly-outside", "bbox", [10, 10, 55, 15])
of_annotation("bbox-corners", "bbox", [10, 10, 30, 25])
of_annotation("bbox-differs", "bbox", [40, 20, 10, 10])
of_annotation("mask-type", "segmentation", "a mask")
of_annotation("mask-list-empty", "segmentation", [])
of_annotation("mask-empty", "segmentation", [[5, 5, 5.1, 5, 5.1, 5.1]], "mask of a tiny polygon")
THIN = [[10.1, 0, 10.3, 0, 10.3, 40, 10.1, 40]]
of_annotation("mask-empty", "segmentation", THIN, "mask between two columns")
EDGE = [[-100, 10, 0.2, 10, 0.2, 30, -100, 30]]
of_annotation("mask-empty", "segmentation", EDGE, "mask that hardly reaches the picture")
of_annotation("polygon-odd", "segmentation", [[*SQUARE, 10]])
of_annotation("polygon-nan", "segmentation", [[*SQUARE, NAN, 10]])
of_annotation("polygon-nan", "segmentation", [[*SQUARE, INFINITY, 10]], "polygon to infinity")
of_annotation("polygon-nan", "segmentation", [[*SQUARE, INFINITY, -INFINITY]], "both infinities")
of_annotation("polygon-not-numbers", "segmentation", [[*SQUARE, "10", 20]])
of_annotation("polygon-not-numbers", "segmentation", [[*SQUARE, None, 20]], "polygon with null")
of_annotation("polygon-not-numbers", "segmentation", [SQUARE, "x"], "a text for a polygon")
of_annotation("polygon-relative", "segmentation", [[0.1, 0.1, 0.5, 0.1, 0.5, 0.6]])
of_annotation("polygon-far-outside", "segmentation", [[10, 10, 1e9, 10, 10, 25]])
of_annotation("polygon-flat", "segmentation", SQUARE)
of_annotation("polygon-pairs", "segmentation", [[10, 10], [30, 10], [30, 25], [10, 25]])
of_annotation("polygon-nested", "segmentation", [[SQUARE]])
of_annotation("polygon-nested", "segmentation", [[[10, 10], [30, 10], [30, 25]]], "nested pairs")
of_annotation("polygon-few-points", "segmentation", [SQUARE, [1, 1, 5, 5]])
of_annotation("polygon-outside", "segmentation", [SQUARE, [70, 1, 80, 1, 80, 9]])
of_annotation("polygon-outside", "segmentation", [[70, 1, 80, 1, 80, 9]], "all outside")
of_annotation("polygon-empty", "segmentation", [SQUARE, [5, 5, 5.1, 5, 5.1, 5.1]])
of_annotation("polygon-partly-outside", "segmentation", [[10, 10, 70, 10, 70, 25, 10, 25]])
WHOLE = uncompressed_rle(box_mask())
TEXT = compressed_rle(box_mask())
of_rle("rle-incomplete", {"counts": WHOLE["counts"]})
of_rle("rle-incomplete", {"size": WHOLE["size"]}, "RLE without counts")
of_rle("rle-incomplete", {**WHOLE, "size": 2400}, "RLE with one number for its size")
of_rle("rle-size", {**WHOLE, "size": [20, 120]})
of_rle("rle-size-swapped", {**WHOLE, "size": [WIDTH, HEIGHT]})
of_rle("rle-not-integers", {**WHOLE, "counts": [1.5, 2398.5]})
of_rle("rle-not-integers", {**WHOLE, "counts": {"a": 1}}, "RLE counts of another type")
of_rle("rle-negative", {**WHOLE, "counts": [-10, 2410]})
of_rle("rle-sum", {**WHOLE, "counts": [*WHOLE["counts"], 5]})
of_rle("rle-sum", {**TEXT, "counts": TEXT["counts"] + "1"}, "RLE text with a run too many")
of_rle("rle-broken", {**TEXT, "counts": TEXT["counts"][:-2]}, "RLE text without its end")
of_rle("rle-broken", {**TEXT, "counts": TEXT["counts"] + "\x01"})
of_rle("rle-broken", {**TEXT, "counts": TEXT["counts"] + "P"}, "RLE text cut off in a number")
of_rle("mask-empty", {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]})
of_image("image-id-missing", "id", ...)
of_image("image-id-type", "id", 1.5)
of_image("image-id-float", "id", 1.0)
of_image("image-id-twice", "id", 2)
of_image("image-id-twice", "id", 2.0, "two images of one id with a decimal point")
of_image("file-name-missing", "file_name", ...)
of_image("file-name-type", "file_name", 7)
of_image("file-name-escapes", "file_name", "../1.png")
of_image("file-name-escapes", "file_name", "/etc/passwd", "an absolute file name")
of_image("file-name-escapes", "file_name", "C:\\1.png", "a file name with a drive")
of_image("file-name-twice", "file_name", "2.png")
of_image("image-name-case", "file_name", "1.PNG")
of_image("image-size-missing", "width", ...)
of_image("image-size-invalid", "width", 0)
of_image("image-size-invalid", "width", 60.5, "a width with a fraction")
of_image("image-size-differs", "width", 61)
of_image("image-size-differs", "width", 10**400, "a width that is no float")
of_image("image-size-differs", "width", 30.5, "a width of another picture with a fraction")
of_image("image-size-differs", "width", "120", "a width of another picture as text")


@defect("image-name-accents")
def _(content: dict, folder: Path) -> None:
    content["images"][0]["file_name"] = "\u00e9.png"
    (folder / "1.png").rename(folder / "e\u0301.png")


@defect("image-name-backslash")
def _(content: dict, folder: Path) -> None:
    content["images"][0]["file_name"] = "one\\1.png"
    (folder / "one").mkdir()
    (folder / "1.png").rename(folder / "one/1.png")


@picture("image-missing")
def _(path: Path) -> None:
    path.unlink()


@picture("image-file-empty")
def _(path: Path) -> None:
    path.write_bytes(b"")


@picture("image-unreadable")
def _(path: Path) -> None:
    path.write_bytes(b"this is no picture")


def several(path: Path, kind: str) -> bytes:
    frames = [Image.new("L", (WIDTH, HEIGHT), color) for color in (5, 90)]
    frames[0].save(path, format=kind, save_all=True, append_images=frames[1:])
    return path.read_bytes()


# Pillow raises IndexError, struct.error and TypeError for these.
for kind, end in (("GIF", 123), ("GIF", 130), ("TIFF", 130)):

    @picture("image-unreadable", f"the first {end} bytes of a {kind}")
    def _(path: Path, kind: str = kind, end: int = end) -> None:
        path.write_bytes(several(path, kind)[:end])


@picture("image-is-a-folder")
def _(path: Path) -> None:
    path.unlink()
    path.mkdir()


@picture("image-truncated")
def _(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


@picture("image-colours")
def _(path: Path) -> None:
    Image.new("I;16", (WIDTH, HEIGHT)).save(path)


@picture("image-file-type")
def _(path: Path) -> None:
    Image.open(path).convert("RGB").save(path, format="BMP")


@picture("image-animated")
def _(path: Path) -> None:
    several(path, "GIF")


@picture("image-duplicate")
def _(path: Path) -> None:
    shutil.copy(path.with_name("2.png"), path)


@picture("image-similar")
def _(path: Path) -> None:
    smooth = Image.open(path.with_name("2.png")).resize((9, 8)).resize((WIDTH, HEIGHT))
    smooth.save(path.with_name("2.png"))
    smooth.point(lambda value: value * 0.9).save(path)


def turned(path: Path, orientation: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", size, (9, 80, 7)).save(path, format="PNG", exif=exif)


@picture("image-exif-size")
def _(path: Path) -> None:
    turned(path, 6)


@picture("image-exif-rotated")
def _(path: Path) -> None:
    turned(path, 6, (HEIGHT, WIDTH))


@picture("image-exif-unclear")
def _(path: Path) -> None:
    turned(path, 3)


@defect("image-without-objects")
def _(content: dict, folder: Path) -> None:
    del content["annotations"][0]


@defect("annotation-duplicate")
def _(content: dict, folder: Path) -> None:
    content["annotations"].append({**copy.deepcopy(content["annotations"][0]), "id": 9})


@defect("image-not-an-object")
def _(content: dict, folder: Path) -> None:
    content["images"].append("4.png")


@defect("annotation-not-an-object")
def _(content: dict, folder: Path) -> None:
    content["annotations"].append([1, 2, 3])


@defect("annotations-type")
def _(content: dict, folder: Path) -> None:
    content["annotations"] = {}


@defect("annotations-missing")
def _(content: dict, folder: Path) -> None:
    del content["annotations"]


def of_category(kind: str, value: object, name: str = "") -> None:
    @defect(kind, name)
    def _(content: dict, folder: Path) -> None:
        content["categories"].append(value)


of_category("category-not-an-object", "bird")
of_category("category-id-missing", {"name": "bird"})
of_category("category-id-type", {"id": 2.5, "name": "bird"})
of_category("category-id-text", {"id": "3", "name": "bird"})
of_category("category-id-text", {"id": 3.0, "name": "bird"}, "with a decimal point")
of_category("category-id-twice", {"id": 2, "name": "bird"})
of_category("category-name-missing", {"id": 3})
of_category("category-name-twice", {"id": 3, "name": "dog"})
of_category("category-gaps", {"id": 9, "name": "bird"})
of_category("category-without-objects", {"id": 3, "name": "bird"})
of_category("category-name-voc", {"id": 3, "name": "Potted Plant"})


@defect("categories-missing")
def _(content: dict, folder: Path) -> None:
    del content["categories"]


def make(root: Path, name: str) -> str:
    """Write the data set of ``root`` with a defect; the kind that must be found."""
    kind, change = CORPUS[name]
    content = whole_content()
    write_pictures(root / "train_images")
    change(content, root / "train_images")
    (root / "pascal_train.json").write_text(json.dumps(content))
    return kind
