"""What is seen of pictures without decoding them, and which look alike."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from project.data.checking.pictures import difference_hash, read_headers, similar_groups
from project.data.coco_json import inspect_dataset
from project.data.reading import read_image
from tests.data.defects import EXIF_ORIENTATION, HEIGHT, WIDTH, make, turned

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
