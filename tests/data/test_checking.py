"""Every defect of a data set is named with its place; the repaired copy can be trained on."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from pycocotools import mask as coco_mask

import train_net
from project.config import load_config
from project.data.categories import read_categories
from project.data.checking.masks import decode_counts, inspect_mask
from project.data.checking.pictures import difference_hash, read_headers, similar_groups
from project.data.checking.problems import KINDS, Severity
from project.data.coco_json import inspect_dataset
from project.data.coco_records import coco_records
from project.data.datasets import require_dataset, require_sound
from project.data.mapper import build_mapper
from project.data.reading import read_image
from project.data.segmentation import compressed_rle, uncompressed_rle
from project.errors import UserError
from scripts import check_dataset
from tests.helpers import REPOSITORY, SMALL_CONFIG, load_small_config

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


def report_of(root: Path, *options: str) -> tuple[int, dict]:
    target = root.with_name("report.json")
    with pytest.raises(SystemExit) as ended:
        check_dataset.main([str(root), "--json", str(target), *options])
    report = json.loads(target.read_text())["tiny_voc_train"]
    target.unlink()
    return ended.value.code, report


def test_the_corpus_is_large_and_every_kind_is_in_it():
    assert len(CORPUS) >= 60
    elsewhere = {"image-in-two-sets"}
    assert {kind for kind, _ in CORPUS.values()} == KINDS.keys() - elsewhere


def test_a_sound_data_set_has_no_problem(tmp_path):
    write_pictures(tmp_path / "root/train_images")
    (tmp_path / "root/pascal_train.json").write_text(json.dumps(whole_content()))
    code, report = report_of(tmp_path / "root", "--decode")
    assert (code, report["problems"]) == (0, [])
    assert report["statistics"]["categories"]["dog"] == {"objects": 2, "images": 2}


def test_categories_of_one_name_are_counted_apart(tmp_path):
    content = whole_content()
    names = [category["name"] for category in content["categories"]]
    for category in content["categories"]:
        category["name"] = "animal"
    write_pictures(tmp_path / "root/train_images")
    (tmp_path / "root/pascal_train.json").write_text(json.dumps(content))
    _, report = report_of(tmp_path / "root")
    counts = report["statistics"]["categories"]
    assert len(counts) == len(names) > 1 and all(name.startswith("animal (id ") for name in counts)
    assert sum(x["objects"] for x in counts.values()) == report["statistics"]["objects"]


@pytest.mark.parametrize("name", CORPUS)
def test_a_defect_is_named_and_the_repaired_copy_has_none(tmp_path, capsys, name):
    kind = make(tmp_path / "root", name)
    before = contents(tmp_path / "root")
    fixed = tmp_path / "fixed"
    code, report = report_of(tmp_path / "root", "--decode", "--fix", str(fixed))
    found = [problem for problem in report["problems"] if problem["kind"] == kind]
    assert found, report["problems"]
    about = {"image": "image_id", "bbox": "annotation_id", "rle": "annotation_id"}
    about |= {"polygon": "annotation_id", "mask": "annotation_id", "area": "annotation_id"}
    key = about.get(kind.split("-")[0])
    if key and kind not in ("image-id-missing", "image-not-an-object"):
        assert found[0][key] in (1, 2, 1.5)
    # Errors alone decide about the exit code.
    errors = {p["kind"] for p in report["problems"] if p["severity"] == "error"}
    assert code == (1 if errors else 0) and (kind in errors) == (
        KINDS[kind].severity is Severity.ERROR
    )
    assert kind in capsys.readouterr().out
    assert contents(tmp_path / "root") == before  # nothing in place

    code, report = report_of(fixed, "--decode")
    left = {p["kind"] for p in report["problems"] if KINDS[p["kind"]].remedy}
    if kind == "categories-missing":
        return  # nothing to train on is left
    assert code == 0 and not left
    # Of an id that stands for two things, the objects of both go.
    least = {"annotations-type": 0, "annotations-missing": 0}
    least |= {"image-id-twice": 1, "category-id-twice": 1}
    assert trainable(fixed) >= least.get(kind, 2)


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def trainable(root: Path) -> int:
    """How many objects the model sees."""
    json_file, folder = root / "pascal_train.json", root / "train_images"
    categories = read_categories(json.loads(json_file.read_text()), json_file)
    cfg = load_config(str(SMALL_CONFIG), default_config=str(SMALL_CONFIG))
    mapper = build_mapper(cfg, is_train=True)
    records = [mapper(record) for record in coco_records(json_file, folder, categories)]
    return sum(len(record["instances"]) for record in records)


def test_a_set_with_many_defects_is_refused_then_left_out_then_repaired(
    tmp_path, capsys, small_opts, generated_root
):
    """By the program that trains."""
    root = tmp_path / "root"
    shutil.copytree(generated_root, root)
    content = json.loads((root / "pascal_train.json").read_text())
    for number, (kind, change) in enumerate(CORPUS.values()):
        if kind.split("-")[0] in ("mask", "polygon", "rle", "bbox", "area", "crowd"):
            broken = whole_content()
            change(broken, root)
            extra = {**content["annotations"][0], **broken["annotations"][0]}
            extra |= {"id": 5000 + number, "image_id": content["images"][0]["id"]}
            extra["category_id"] = content["categories"][0]["id"]
            for key in ("segmentation", "bbox", "area", "iscrowd"):
                if key not in broken["annotations"][0]:
                    extra.pop(key)
            content["annotations"].append(extra)
    (root / "train_images" / content["images"][1]["file_name"]).write_bytes(b"no picture")
    (root / "pascal_train.json").write_text(json.dumps(content))
    pairs = [*small_opts, "DATASETS.ROOT", str(root), "DATASETS.TEST", "()"]
    command = ["--config-file", str(SMALL_CONFIG)]
    with pytest.raises(SystemExit) as ended:
        train_net.main([*command, *pairs])
    assert ended.value.code == 2
    assert "image-unreadable" in capsys.readouterr().err
    train_net.main([*command, *pairs, "DATASETS.SKIP_BAD", "True"])
    assert "left out: 1 x image-unreadable" in capsys.readouterr().out
    assert (tmp_path / "run/model_final.pth").exists()

    with pytest.raises(SystemExit):
        check_dataset.main([str(root), "--fix", str(tmp_path / "fixed")])
    pairs = [*small_opts, "DATASETS.ROOT", str(tmp_path / "fixed"), "DATASETS.TEST", "()"]
    train_net.main([*command, "--overwrite", *pairs])
    changes = json.loads((tmp_path / "fixed/changes.json").read_text())["tiny_voc_train"]
    assert {change["kind"] for change in changes} >= {"image-unreadable", "polygon-nan", "rle-size"}


def test_a_picture_of_both_sets_is_named(tmp_path):
    root = tmp_path / "root"
    for split, name in (("train", "pascal_train.json"), ("test", "test_annotations.json")):
        write_pictures(root / f"{split}_images")
        (root / name).write_text(json.dumps(whole_content()))
    target = tmp_path / "report.json"
    with pytest.raises(SystemExit):
        check_dataset.main([str(root), "--json", str(target)])
    problems = json.loads(target.read_text())["tiny_voc_test_annotated"]["problems"]
    assert [p["kind"] for p in problems] == ["image-in-two-sets"] * 3


@pytest.mark.parametrize("text", ['{"images": [', "[1, 2]", '{"annotations": []}'])
def test_what_is_no_coco_json_is_one_line(tmp_path, text):
    (tmp_path / "train_images").mkdir()
    (tmp_path / "pascal_train.json").write_text(text)
    command = [sys.executable, "scripts/check_dataset.py", str(tmp_path)]
    env_path = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=env_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "pascal_train.json is not" in result.stderr


def test_a_repaired_copy_replaces_nothing(tmp_path):
    make(tmp_path / "root", "bbox-empty")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        check_dataset.main([str(tmp_path / "root"), "--fix", str(tmp_path / "out")])
    assert ended.value.code == 2


def test_a_copy_is_refused_before_the_check(tmp_path, monkeypatch, capsys):
    make(tmp_path / "root", "bbox-empty")
    monkeypatch.setattr(check_dataset, "check_sets", None)
    with pytest.raises(SystemExit, match="2"):
        check_dataset.main([str(tmp_path / "root"), "--fix", str(tmp_path / "root")])
    assert "not an empty folder" in capsys.readouterr().err


def test_pictures_behind_a_link_are_in_the_copy(tmp_path):
    make(tmp_path / "root", "bbox-empty")
    (tmp_path / "root/train_images").rename(tmp_path / "elsewhere")
    (tmp_path / "root/train_images").symlink_to(tmp_path / "elsewhere")
    report_of(tmp_path / "root", "--fix", str(tmp_path / "fixed"))
    assert len(list((tmp_path / "fixed/train_images").iterdir())) == 3
    assert report_of(tmp_path / "fixed")[1]["problems"] == []


def test_a_json_with_a_byte_order_mark_is_read(tmp_path):
    write_pictures(tmp_path / "root/train_images")
    text = json.dumps(whole_content())
    (tmp_path / "root/pascal_train.json").write_text(text, encoding="utf-8-sig")
    assert report_of(tmp_path / "root")[0] == 0


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "tif"])
@pytest.mark.parametrize("data", ["nothing", "exif", "xmp", "xmp and exif"])
def test_a_header_has_the_size_that_is_read(tmp_path, kind, data):
    path = tmp_path / f"1.{kind}"
    exif, info = Image.Exif(), PngInfo()
    if data == "exif":
        exif[EXIF_ORIENTATION] = 6
    elif data == "xmp and exif":
        exif[ExifTags.Base.Make] = "camera"
    options = {"exif": exif} if "exif" in data else {}
    if "xmp" in data:
        info.add_itxt("XML:com.adobe.xmp", XMP)
        options |= {"pnginfo": info} if kind == "png" else {"xmp": XMP.encode()}
    Image.new("RGB", (WIDTH, HEIGHT), (9, 80, 7)).save(path, **options)
    header = read_headers(tmp_path, [path.name])[path.name]
    assert (header.height, header.width) == read_image(path).shape[:2]


def test_each_picture_that_looks_like_others_is_named_once_a_set(tmp_path):
    root, noise = tmp_path / "root", np.random.default_rng(0).integers(0, 255, (8, 9, 3))
    view = Image.fromarray(noise.astype(np.uint8)).resize((WIDTH, HEIGHT))
    for split, name in (("train", "pascal_train.json"), ("test", "test_annotations.json")):
        write_pictures(root / f"{split}_images")
        for i in (1, 2, 3):  # of a fixed camera
            view.putpixel((i, len(split)), (0, 0, 0))
            view.save(root / f"{split}_images/{i}.png")
        (root / name).write_text(json.dumps(whole_content()))
    target = tmp_path / "report.json"
    with pytest.raises(SystemExit):
        check_dataset.main([str(root), "--decode", "--json", str(target)])
    report = json.loads(target.read_text())
    train, test = (
        [problem["detail"] for problem in report[name]["problems"]]
        for name in ("tiny_voc_train", "tiny_voc_test_annotated")
    )
    assert train == ["1.png"] * 2
    assert sorted(test) == ["1.png"] * 2 + ["1.png of tiny_voc_train"] * 3


def test_pictures_that_look_the_same_are_one_group():
    """All of a fixed camera, and a chain of which each looks like the next."""
    rng = np.random.default_rng(0)
    views = [int.from_bytes(rng.bytes(8), "big") for _ in range(3)]
    hashes = {}
    for view, value in enumerate(views):
        for number in range(400):
            hashes[Path(f"{view}/{number}")] = value ^ (1 << int(rng.integers(64)))
    chain = [int.from_bytes(rng.bytes(8), "big")]
    for step in range(9):
        chain.append(chain[-1] ^ (0b111 << (7 * step)))
    hashes |= {Path(f"chain/{number}"): value for number, value in enumerate(chain)}
    hashes |= {Path(f"flat/{number}"): 0 for number in range(5)}
    groups = list(similar_groups(hashes))
    assert all(len({path.parent for path in group}) == 1 for group in groups)
    assert sorted(map(len, groups)) == [10, 400, 400, 400]


def test_headers_are_read_once(tmp_path, monkeypatch):
    make(tmp_path / "root", "bbox-empty")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("project.data.checking.pictures._WORTH_KEEPING", 1)
    files = tmp_path / "root/pascal_train.json", tmp_path / "root/train_images"
    first = inspect_dataset(*files)
    monkeypatch.setattr("project.data.checking.pictures._read_header", None)
    (tmp_path / "root/pascal_train.json").touch()
    assert inspect_dataset(*files).problems == first.problems


def test_options_that_cannot_be_are_refused_before_anything_is_read(tmp_path, capsys):
    make(tmp_path / "root", "bbox-empty")
    (tmp_path / "file").touch()
    refused = (
        (["--images", "photos"], "--images goes with --annotations"),
        (["--fix", str(tmp_path / "file/out")], "is a file"),
    )
    for options, message in refused:
        with pytest.raises(SystemExit, match="2"):
            check_dataset.main([str(tmp_path / "root"), *options])
        captured = capsys.readouterr()
        assert message in captured.err and not captured.out


def test_the_report_may_lie_in_the_repaired_copy(tmp_path):
    make(tmp_path / "root", "bbox-empty")
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        check_dataset.main(
            [str(tmp_path / "root"), "--fix", str(out), "--json", str(out / "report.json")]
        )
    assert (out / "report.json").is_file() and (out / "changes.json").is_file()


def test_a_name_that_is_no_utf8_is_printed(tmp_path):
    content = whole_content()
    content["images"][0]["file_name"] = "caf\udce9.png"
    (tmp_path / "pascal_train.json").write_text(json.dumps(content))
    write_pictures(tmp_path / "train_images")
    result = subprocess.run(
        [sys.executable, "scripts/check_dataset.py", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "caf\\udce9.png" in result.stdout, result.stderr


def test_a_picture_that_could_not_be_read_is_read_again(tmp_path, monkeypatch):
    make(tmp_path / "root", "bbox-empty")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("project.data.checking.pictures._WORTH_KEEPING", 1)
    files = tmp_path / "root/pascal_train.json", tmp_path / "root/train_images"

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        kinds = {problem.kind for problem in inspect_dataset(*files).problems}
    assert "image-unreadable" in kinds
    (tmp_path / "root/pascal_train.json").touch()  # else what was found is taken, for this process
    kinds = {problem.kind for problem in inspect_dataset(*files).problems}
    assert "image-unreadable" not in kinds


def test_16_bit_pictures_may_look_alike(tmp_path):
    smooth = cv2.resize(np.random.default_rng(0).random((8, 9)), (90, 80))
    for number, factor in enumerate((60000, 57000)):
        Image.fromarray((smooth * factor).astype(np.uint16)).save(tmp_path / f"{number}.png")
    first, second = (difference_hash(tmp_path / f"{number}.png") for number in (0, 1))
    assert first != 0 and (first ^ second).bit_count() <= 3


def test_a_rotated_picture_without_a_size_in_the_json_is_named(tmp_path):
    make(tmp_path, "image-size-missing")
    content = json.loads((tmp_path / "pascal_train.json").read_text())
    (image,) = (x for x in content["images"] if "width" not in x or "height" not in x)
    turned(tmp_path / "train_images" / image["file_name"], 6, (HEIGHT, WIDTH))
    problems = inspect_dataset(tmp_path / "pascal_train.json", tmp_path / "train_images").problems
    assert {"image-size-missing", "image-exif-unclear"} <= {problem.kind for problem in problems}


@given(
    st.lists(st.tuples(st.floats(-90, 150), st.floats(-60, 100)), min_size=3, max_size=4),
    st.floats(0, 1),
)
def test_a_polygon_with_a_pixel_is_kept_and_has_its_area_in_the_picture(points, thickness):
    # Pressed flat, as most polygons without a pixel are.
    polygon = [value for x, y in points for value in (x, 10.3 + y * thickness**4)]
    result = inspect_mask([polygon], HEIGHT, WIDTH)
    pixels = coco_mask.decode(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)).sum()
    if min(*polygon[0::2], *polygon[1::2]) < -1 and result.segmentation is not None:
        assert result.area == pixels
    outside = "polygon-outside" in {kind for kind, _ in result.problems}
    assert outside or (result.segmentation is not None) == (pixels > 0)


def masks() -> st.SearchStrategy[np.ndarray]:
    sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))
    bits = st.integers(0, 2**32 - 1)
    return st.builds(lambda size, seed: np.random.default_rng(seed).random(size) < 0.5, sizes, bits)


@given(masks())
def test_an_rle_is_what_it_encodes(mask):
    encoded = compressed_rle(mask)
    runs = uncompressed_rle(mask)["counts"]
    assert decode_counts(encoded["counts"]) == runs
    for rle in (encoded, uncompressed_rle(mask)):
        result = inspect_mask(rle, *mask.shape)
        if not mask.any():
            assert result.segmentation is None and result.problems == [("mask-empty", "")]
            continue
        rows, columns = mask.nonzero()
        top, left = rows.min(), columns.min()
        size = (columns.max() - left + 1, rows.max() - top + 1)
        assert (result.box, result.area) == ((left, top, *size), mask.sum())


@given(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=127), max_size=40))
def test_no_text_is_taken_for_a_mask_that_it_is_not(text):
    result = inspect_mask({"size": [6, 7], "counts": text}, 6, 7)
    if result.segmentation is not None:
        decoded = coco_mask.decode({"size": [6, 7], "counts": text})
        assert decoded.sum() == result.area > 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=3, max_size=9))
def test_a_polygon_has_the_box_and_area_of_its_points(points):
    polygon = [float(value) for point in points for value in point]
    result = inspect_mask([polygon], HEIGHT, WIDTH)
    pixels = coco_mask.decode(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)).sum()
    if result.segmentation is None:
        assert pixels == 0 or max(polygon[0::2]) <= 0 or max(polygon[1::2]) <= 0
        return
    xs, ys = zip(*points, strict=True)
    left, top = min(xs), min(ys)
    assert result.box == (left, top, max(xs) - left, max(ys) - top)


def test_training_says_what_it_repairs(tmp_path, small_opts, caplog):
    make(tmp_path / "root", "annotation-id-zero")
    cfg = load_small_config([*small_opts, "DATASETS.ROOT", str(tmp_path / "root")])
    with caplog.at_level("WARNING", logger="project"):
        require_sound(require_dataset(cfg, "tiny_voc_train"), skip_bad=False)
    assert "1 x annotation-id-zero (1.png, image 1, annotation 0)" in caplog.text
    (tmp_path / "root/train_images/2.png").unlink()
    with pytest.raises(UserError, match=r"1 x image-missing \(2\.png, image 2\)"):
        require_sound(require_dataset(cfg, "tiny_voc_train"), skip_bad=False)
