"""What is made of the content of a COCO JSON, whatever it holds."""

import copy
import os

import pytest

from project.data.checking.inspection import inspect_content
from project.data.checking.pictures import read_headers
from project.data.checking.report import statistics
from project.errors import UserError
from tests.data.defects import HEIGHT, WIDTH, turned, whole_content, write_pictures


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, HEIGHT)])
def test_an_orientation_that_does_not_show_in_the_size_is_pointed_out(tmp_path, orientation, size):
    turned(tmp_path / "1.png", orientation, size)
    rotates = orientation > 4
    width, height = size[::-1] if rotates else size
    image = {"id": 1, "file_name": "1.png", "width": width, "height": height}
    content = {"images": [image], "categories": [{"id": 1, "name": "dog"}]}
    inspection = inspect_content(content, read_headers(tmp_path, ["1.png"]))
    unclear = orientation > 1 and not (rotates and width != height)
    assert ("image-exif-unclear" in {p.kind for p in inspection.problems}) == unclear


def ids_of(inspection, key: str) -> list:
    return [annotation[key] for annotation in inspection.content["annotations"]]


def test_objects_of_an_id_that_stands_for_two_things_are_left_out(tmp_path):
    """They were given to the first of two images, and to the first of two categories."""
    write_pictures(tmp_path / "images")
    headers = read_headers(tmp_path / "images", ["1.png", "2.png", "3.png"])
    content = whole_content()
    images = [annotation["image_id"] for annotation in content["annotations"]]
    content["images"][0]["id"] = content["images"][1]["id"]
    inspection = inspect_content(content, headers)
    assert [p.kind for p in inspection.problems].count("image-id-twice") == 2
    twice = {content["images"][0]["id"], images[0]}
    assert ids_of(inspection, "image_id") == [x for x in images if x not in twice] != []

    content = whole_content()
    categories = [annotation["category_id"] for annotation in content["annotations"]]
    content["categories"].append({"id": categories[0], "name": "bird"})
    inspection = inspect_content(content, headers)
    left = [x for x in categories if x != categories[0]]
    assert ids_of(inspection, "category_id") == left != categories


def test_an_image_or_category_that_is_listed_twice_alike_stays(tmp_path):
    write_pictures(tmp_path / "images")
    content = whole_content()
    content["images"].append(content["images"][0])
    content["categories"].append(content["categories"][0])
    inspection = inspect_content(
        content, read_headers(tmp_path / "images", ["1.png", "2.png", "3.png"])
    )
    assert {p.kind for p in inspection.errors} == {"image-id-twice", "category-id-twice"}
    assert len(inspection.content["annotations"]) == len(content["annotations"])


VALUES = [
    None,
    True,
    -1,
    0,
    7,
    1.5,
    1e400,
    "",
    "x",
    "2",
    [],
    [[]],
    [1],
    [[[], 10, 12]],
    {},
    {"a": 1},
]


def test_no_value_anywhere_is_a_crash(tmp_path):
    """Each value of a sound JSON replaced by each of many others; then it is loaded."""
    write_pictures(tmp_path / "images")
    headers = read_headers(tmp_path / "images", ["1.png", "2.png", "3.png"])

    def places(value, path=()):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items if isinstance(value, (dict, list)) else ():
            yield from (
                places(inner, (*path, key)) if isinstance(inner, (dict, list)) else [(*path, key)]
            )

    tried = 0
    for *path, last in filter(None, places(whole_content())):
        if path == [] and last == "images":
            continue  # read_coco_json asks for a list
        for value in VALUES:
            content = whole_content()
            target = content
            for key in path:
                target = target[key]
            target[last] = copy.deepcopy(value)
            inspection = inspect_content(content, headers)
            statistics(inspection.content)
            tried += 1
    assert tried > 500


def test_folders_whose_names_are_no_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_pictures(folder)
    name = next(folder.rglob("*.png")).relative_to(folder).as_posix()
    assert read_headers(folder, [name])[name].kind is None


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be read: Not a directory"):
        read_headers(tmp_path / "file", ["1.png"])
