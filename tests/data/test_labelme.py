"""labelme's shapes become the masks that they enclose."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from project.data.checking.problems import Severity
from project.data.coco_json import inspect_dataset
from project.data.labelme import read_labelme
from project.data.layout import tiny_voc_files
from project.data.segmentation import decode_segmentation
from scripts import prepare_labelme

SIZE = (80, 120)


def shape(label: str, points: list, kind: str = "polygon", **fields) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **fields}


def annotate(folder, name: str, shapes: list[dict], **fields) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(0).randint(0, 256, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name}
    content |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **fields}
    (folder / name).with_suffix(".json").write_text(json.dumps(content))


def prepare(folder, root) -> dict:
    prepare_labelme.main([str(folder), str(root)])
    files = tiny_voc_files(root)["tiny_voc_train"]
    inspection = inspect_dataset(files.json_file, files.image_root, decode=True)
    assert not [p for p in inspection.problems if p.severity is not Severity.NOTE]
    return json.loads(files.json_file.read_text())


def masks_of(content: dict) -> dict[str, np.ndarray]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    return {
        names[a["category_id"]]: decode_segmentation(a["segmentation"], *SIZE)
        for a in content["annotations"]
    }


def png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_every_shape_with_an_area_is_a_mask(tmp_path):
    ring = np.ones((21, 31), dtype=bool)
    ring[5:15, 8:20] = False
    shapes = [
        shape("triangle", [[10.5, 10.2], [50.0, 12.0], [30.0, 60.0]]),
        shape("box", [[100, 70], [60, 30]], "rectangle"),  # corners in any order
        shape("disc", [[60, 40], [60, 60]], "circle"),
        shape("ring", [[70, 40], [100, 60]], "mask", mask=png(ring)),
        shape("dot", [[5, 5]], "point"),
        shape("way", [[5, 5], [9, 9]], "linestrip"),
    ]
    annotate(tmp_path / "in", "a.jpg", shapes)
    content = prepare(tmp_path / "in", tmp_path / "out")
    masks = masks_of(content)
    assert set(masks) == {"triangle", "box", "disc", "ring"}
    assert len(content["categories"]) == 4  # points and lines make no class
    assert np.array_equal(masks["box"], np.pad(np.ones((40, 40), bool), ((30, 10), (60, 20))))
    rows, columns = np.indices(SIZE) + 0.5
    disc = (rows - 40) ** 2 + (columns - 60) ** 2 < 20**2
    assert (masks["disc"] != disc).mean() < 0.01 and masks["disc"].sum() > 1000
    assert np.array_equal(masks["ring"][40:61, 70:101], ring)
    assert masks["ring"].sum() == ring.sum()
    assert masks["triangle"][30, 30] and not masks["triangle"][50, 15]
    names = [category["name"] for category in content["categories"]]
    assert names == sorted(names)


def test_a_picture_that_was_resized_after_annotation_is_named(tmp_path):
    corner = shape("x", [[1, 1], [20, 1], [20, 20]])
    annotate(tmp_path / "in", "a.jpg", [corner], imageHeight=2 * SIZE[0], imageWidth=2 * SIZE[1])
    with pytest.raises(SystemExit, match="2"):
        prepare_labelme.main([str(tmp_path / "in"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_objects_outside_the_picture_are_counted(tmp_path, capsys):
    inside = shape("x", [[1, 1], [20, 1], [20, 20]])
    outside = shape("x", [[500, 500], [520, 500], [520, 520]])
    annotate(tmp_path / "in", "a.jpg", [inside, outside])
    assert len(prepare(tmp_path / "in", tmp_path / "out")["annotations"]) == 1
    assert "left out: 1 x object without a pixel in the picture" in capsys.readouterr().out


def test_shapes_of_a_group_are_one_object(tmp_path):
    def box(x, **fields):
        return shape("cat", [[x, 10], [x + 10, 10], [x + 10, 30], [x, 30]], **fields)

    half = np.ones((10, 10), dtype=bool)
    annotate(
        tmp_path / "in",
        "a.png",
        [
            box(0, group_id=1),
            box(20, group_id=1),
            box(40),
            box(60, group_id=2),
            shape("cat", [[80, 10], [89, 19]], "mask", mask=png(half), group_id=2),
            {**box(95, group_id=1), "label": "dog"},
        ],
    )
    content = prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(a["area"] for a in content["annotations"]) == [200, 200, 300, 400]


def test_pictures_in_folders_without_objects_and_inside_the_json(tmp_path):
    folder = tmp_path / "in"
    annotate(folder / "one", "a.jpg", [shape("x", [[1, 1], [20, 1], [20, 20]])])
    annotate(folder / "two", "a.jpg", [])
    data = base64.b64encode((folder / "one/a.jpg").read_bytes()).decode()
    annotate(folder, "b.jpg", [shape("y", [[1, 1], [20, 1], [20, 20]])], imageData=data)
    (folder / "b.jpg").unlink()
    content = prepare(folder, tmp_path / "out")
    names = {image["file_name"] for image in content["images"]}
    assert names == {"one/a.jpg", "two/a.jpg", "b.jpg"}
    assert len(content["annotations"]) == 2
    copied = tmp_path / "out/train_images/one/a.jpg"
    assert copied.read_bytes() == (folder / "one/a.jpg").read_bytes()


def test_linked_folders_and_pictures_have_the_names_that_they_are_seen_by(tmp_path):
    triangle = shape("x", [[1, 1], [20, 1], [20, 20]])
    annotate(tmp_path / "in", "a.jpg", [triangle])
    annotate(tmp_path / "elsewhere", "b.jpg", [triangle])
    (tmp_path / "in/cam2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "in")  # for ever
    stored = tmp_path / "store/5f3a9c"
    stored.parent.mkdir()
    (tmp_path / "in/a.jpg").rename(stored)
    (tmp_path / "in/a.jpg").symlink_to(stored)
    content = prepare(tmp_path / "in", tmp_path / "out")
    assert {image["file_name"] for image in content["images"]} == {"a.jpg", "cam2/b.jpg"}


def test_pictures_of_one_name_outside_of_the_folder(tmp_path):
    triangle = shape("x", [[1, 1], [20, 1], [20, 20]])
    for name in ("a", "b"):
        annotate(tmp_path / "photos" / name, "1.jpg", [])
        target = tmp_path / "labels" / name
        annotate(target, "1.jpg", [triangle], imagePath=f"../../photos/{name}/1.jpg")
        (target / "1.jpg").unlink()
    content = prepare(tmp_path / "labels", tmp_path / "out")
    assert {image["file_name"] for image in content["images"]} == {"a/1.jpg", "b/1.jpg"}


def test_a_picture_elsewhere_does_not_replace_one_of_the_same_name(tmp_path, capsys):
    annotate(tmp_path / "photos", "a.jpg", [])
    annotate(tmp_path / "in", "a.jpg", [])
    (tmp_path / "in/a.json").rename(tmp_path / "in/b.json")
    annotate(tmp_path / "in", "a.jpg", [], imagePath="../photos/a.jpg")
    with pytest.raises(SystemExit, match="2"):
        prepare_labelme.main([str(tmp_path / "in"), str(tmp_path / "out")])
    assert "both pictures would be called a.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_drive_of_windows_is_elsewhere(tmp_path):
    annotate(tmp_path / "in", "a.jpg", [shape("x", [[1, 1], [20, 1], [20, 20]])])
    path = tmp_path / "in/a.json"
    pixels = base64.b64encode((tmp_path / "in/a.jpg").read_bytes()).decode()
    content = {**json.loads(path.read_text()), "imagePath": "C:\\data\\x.jpg", "imageData": pixels}
    path.write_text(json.dumps(content))
    (tmp_path / "in/a.jpg").unlink()
    assert prepare(tmp_path / "in", tmp_path / "out")["images"][0]["file_name"] == "a.jpg"


def test_a_picture_in_a_json_is_not_kept_in_memory(tmp_path):
    annotate(tmp_path, "a.jpg", [], imageData=base64.b64encode(bytes(1000)).decode())
    picture = read_labelme(tmp_path / "a.json")
    assert len(repr(picture.content)) < 1000
    assert picture.image_bytes() == (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").unlink()
    assert picture.image_bytes() == bytes(1000)


def test_an_error_in_the_last_picture_leaves_nothing(tmp_path, capsys):
    triangle = shape("x", [[1, 1], [20, 1], [20, 20]])
    annotate(tmp_path / "in", "a.jpg", [triangle])
    annotate(tmp_path / "in", "b.jpg", [triangle])
    whole = (tmp_path / "in/b.jpg").read_bytes()
    (tmp_path / "in/b.jpg").write_bytes(whole[:300])
    with pytest.raises(SystemExit, match="2"):
        prepare_labelme.main([str(tmp_path / "in"), str(tmp_path / "out")])
    assert "b.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "in/b.jpg").write_bytes(whole)
    assert len(prepare(tmp_path / "in", tmp_path / "out")["images"]) == 2


def test_exif_rotation_is_that_of_labelme(tmp_path):
    # labelme shows, and measures, pictures as their EXIF data rotate them.
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    annotate(tmp_path / "in", "a.jpg", [shape("x", [[1, 1], [70, 1], [70, 110]])], **turned)
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "in/a.jpg", exif=exif)
    (image,) = prepare(tmp_path / "in", tmp_path / "out")["images"]
    assert (image["height"], image["width"]) == SIZE[::-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "no JSON of labelme"),
        ({"imagePath": "a.jpg", "shapes": [{"label": "x"}]}, "without label or points"),
        ({"imagePath": "gone.jpg", "shapes": [shape("x", [[0, 0], [9, 0], [9, 9]])]}, "no picture"),
        ({"imagePath": "a.jpg", "shapes": [shape("x", [[0, 0], [9, 0]])]}, "broken"),
        ({"imagePath": "a.jpg", "shapes": [shape("x", [[0, 0]], "circle")]}, "broken"),
        ({"imagePath": "a.jpg", "shapes": [shape("x", [[0, 0], [1, 1]], "mask")]}, "broken"),
        (
            {"imagePath": "a.jpg", "shapes": [shape("x", [[0, 0], [1, 1]], "mask", mask="AAAA")]},
            "its mask is no picture",
        ),
        ({"imagePath": "a.jpg", "shapes": []}, "no picture has an object"),
        ({"imagePath": "a.jpg", "shapes": [shape("x", [[5, 5]], "point")]}, "no picture has an"),
        ({"imagePath": "a.jpg", "shapes": None}, "no JSON of labelme"),
        ({"imagePath": None, "shapes": []}, "no JSON of labelme"),
        (None, "no JSON of labelme"),
    ],
)
def test_what_cannot_be_taken_is_one_line(tmp_path, capsys, content, message):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", SIZE[::-1]).save(folder / "a.jpg")
    if content is not None:
        (folder / "a.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="2"):
        prepare_labelme.main([str(folder), str(tmp_path / "out")])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_an_annotated_folder_is_not_written_into(tmp_path):
    annotate(tmp_path / "in", "a.jpg", [shape("x", [[1, 1], [20, 1], [20, 20]])])
    before = sorted(path.name for path in (tmp_path / "in").iterdir())
    with pytest.raises(SystemExit, match="2"):
        prepare_labelme.main([str(tmp_path / "in"), str(tmp_path / "in")])
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == before
