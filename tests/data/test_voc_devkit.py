"""VOC's instance maps come back from the JSON bit for bit."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.data.checking.inspection import VOC_NAMES
from project.data.coco_json import inspect_dataset
from project.data.segmentation import decode_segmentation
from scripts import prepare_voc

NAMES = {"train": ["2007_000001", "2007_000002", "2007_000003"], "val": ["2007_000009"]}


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping ellipses with void borders; holes, parts and touching corners occur."""
    random = np.random.default_rng(seed)
    height, width = 60 + seed % 7, 90
    y, x = np.mgrid[:height, :width]
    instances = np.zeros((height, width), np.uint8)
    classes = np.zeros_like(instances)
    for number in range(1, 6):
        centre, radii = random.uniform(0, 1, 2) * (width, height), random.uniform(8, 25, 2)
        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        noisy = distance < 1 + random.normal(0, 0.05, distance.shape)
        border = (distance < 1.15) & ~noisy
        instances[border] = classes[border] = 255
        instances[noisy] = number
        classes[noisy] = random.integers(1, 21)
    return instances, classes


@pytest.fixture
def kit(tmp_path) -> Path:
    return write_kit(tmp_path / "VOCdevkit/VOC2007")


def write_kit(root: Path) -> Path:
    """A kit of one year, in a new folder."""
    lists = root / "ImageSets/Segmentation"
    folders = [root / name for name in ("JPEGImages", "SegmentationObject", "SegmentationClass")]
    for folder in (lists, *folders):
        folder.mkdir(parents=True)
    seed = 0
    for set_name, names in NAMES.items():
        (lists / f"{set_name}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            seed += 1
            pictures = maps(seed)
            noise = np.random.default_rng(seed).integers(0, 255, (*pictures[0].shape, 3), np.uint8)
            Image.fromarray(noise).save(folders[0] / f"{name}.jpg")
            for folder, values in zip(folders[1:], pictures, strict=True):
                image = Image.fromarray(values)
                image.putpalette(list(range(256)) * 3)
                image.save(folder / f"{name}.png")
    return root


def as_tar(kit: Path) -> Path:
    path = kit.parent.parent / "VOC.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(kit.parent, "VOCdevkit")
    return path


@pytest.mark.parametrize("place", [lambda kit: kit, lambda kit: kit.parent, as_tar])
def test_the_maps_come_back_bit_for_bit(kit, tmp_path, place):
    root = tmp_path / "data"
    prepare_voc.main([str(place(kit)), str(root)])
    for json_name, folder, set_name in (
        ("pascal_train.json", "train_images", "train"),
        ("test_annotations.json", "test_images", "val"),
    ):
        inspection = inspect_dataset(root / json_name, root / folder)
        assert not inspection.errors
        content = json.loads((root / json_name).read_text())
        assert [image["file_name"] for image in content["images"]] == [
            f"{name}.jpg" for name in NAMES[set_name]
        ]
        for image in content["images"]:
            name = image["file_name"].removesuffix(".jpg")
            jpeg = (root / folder / image["file_name"]).read_bytes()
            assert jpeg == (kit / "JPEGImages" / image["file_name"]).read_bytes()
            expected = np.asarray(Image.open(kit / f"SegmentationObject/{name}.png")).copy()
            classes = np.asarray(Image.open(kit / f"SegmentationClass/{name}.png"))
            expected[expected == 255] = 0
            found = np.zeros_like(expected)
            mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            numbers = [n for n in np.unique(expected) if n]
            for number, annotation in zip(numbers, mine, strict=True):
                mask = decode_segmentation(annotation["segmentation"], *expected.shape)
                assert not found[mask].any()
                found[mask] = number
                assert annotation["category_id"] == classes[mask][0]
                assert annotation["area"] == mask.sum()
            assert np.array_equal(found, expected)
    test = json.loads((root / "test.json").read_text())
    assert "annotations" not in test and len(test["images"]) == 1
    assert [category["name"] for category in test["categories"]] == list(VOC_NAMES)


def damage(kit: Path, what: str) -> list[str]:
    if what == "a map":
        (kit / "SegmentationObject/2007_000002.png").unlink()
    elif what == "the lists":
        (kit / "ImageSets/Segmentation").rename(kit / "lists")
    elif what == "the palette":
        Image.new("RGB", (90, 62)).save(kit / "SegmentationClass/2007_000002.png")
    elif what == "half a map":
        path = kit / "SegmentationClass/2007_000002.png"
        path.write_bytes(path.read_bytes()[:-60])
    elif what == "the size":
        Image.new("RGB", (9, 9)).save(kit / "JPEGImages/2007_000002.jpg")
    return ["--test-set", "train"] if what == "common pictures" else []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a map", "SegmentationObject/2007_000002.png is missing"),
        ("half a map", "SegmentationClass/2007_000002.png is damaged"),
        ("the lists", "name one VOC kit"),
        ("the palette", "no picture with a palette"),
        ("the size", "the maps of 2007_000002 are not 9 x 9"),
        ("common pictures", "choose lists without common pictures"),
    ],
)
def test_a_kit_that_is_not_whole_is_one_line(kit, tmp_path, capsys, what, message):
    options = damage(kit, what)
    with pytest.raises(SystemExit) as ended:
        prepare_voc.main([str(kit), str(tmp_path / "data"), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
