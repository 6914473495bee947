"""A validation split has every class on both sides, and no picture twice."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from project.data.splitting import stratified_order, stratified_split
from project.errors import UserError
from scripts import split_dataset, subset_dataset

IMAGES = st.dictionaries(
    st.integers(0, 500), st.sets(st.integers(0, 9), max_size=3), min_size=2, max_size=120
)


@given(IMAGES, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5))
def test_the_share_is_kept_and_the_seed_decides(classes, share, seed):
    chosen = stratified_split(classes, share, seed)
    assert chosen <= classes.keys()
    assert chosen == stratified_split(classes, share, seed)
    # Rare classes ask for an image each; beyond these the share is the one wanted.
    assert abs(len(chosen) - share * len(classes)) <= 10


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.integers(0, 5))
def test_each_class_has_its_share_and_a_rare_one_is_on_both_sides(sizes, seed):
    """One class an image: then nothing stands in the way."""
    classes = {(k, i): {k} for k, size in enumerate(sizes) for i in range(size)}
    chosen = stratified_split(classes, 0.2, seed)
    for k, size in enumerate(sizes):
        number = sum(image[0] == k for image in chosen)
        assert 1 <= number <= size - 1
        assert abs(number - max(0.2 * size, 1)) <= 1


@given(IMAGES, st.integers(0, 5), st.data())
def test_what_belongs_together_stays_together(classes, seed, data):
    image = st.sampled_from(sorted(classes))
    pairs = data.draw(st.lists(st.tuples(image, image), max_size=20))
    chosen = stratified_split(classes, 0.3, seed, pairs)
    assert all((first in chosen) == (second in chosen) for first, second in pairs)


def test_the_program_splits_the_generated_set(generated_root, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(generated_root, root)
    content = json.loads((root / "pascal_train.json").read_text())
    # The same picture again, a little darker, under another name.
    first = content["images"][0]
    picture = Image.open(root / "train_images" / first["file_name"])
    picture.point(lambda value: int(value * 0.95)).save(root / "train_images/darker.jpg")
    content["images"].append({**first, "id": 99999, "file_name": "darker.jpg"})
    (root / "pascal_train.json").write_text(json.dumps(content))
    split_dataset.main([str(root), "--share", "0.3"])
    parts = [
        json.loads((root / name).read_text())
        for name in ("pascal_train_split.json", "pascal_val.json")
    ]
    ids = [{image["id"] for image in part["images"]} for part in parts]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 13 and len(ids[1]) in (3, 4, 5)
    assert any({first["id"], 99999} <= one for one in ids)
    for part, images in zip(parts, ids, strict=True):
        assert {a["image_id"] for a in part["annotations"]} <= images
    assert sum(len(p["annotations"]) for p in parts) == len(content["annotations"])
    assert "stay together" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        split_dataset.main([str(root)])
    assert ended.value.code == 2 and "--overwrite" in capsys.readouterr().err


def test_a_negative_seed_is_one_line():
    for choose in (
        lambda: stratified_split({1: "a"}, 0.5, -1),
        lambda: stratified_order({1: "a"}, -1, 1),
    ):
        with pytest.raises(UserError, match="--seed -1"):
            choose()


@given(IMAGES, st.integers(0, 5))
def test_an_order_has_every_image_once_and_the_seed_decides(classes, seed):
    order = stratified_order(classes, seed, len(classes))
    assert sorted(order) == sorted(classes)
    assert order == stratified_order(classes, seed, len(classes))
    assert order[:2] == stratified_order(classes, seed, 2)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 5))
def test_each_class_has_its_share_of_every_beginning(sizes, seed):
    classes = {(k, i): {k} for k, size in enumerate(sizes) for i in range(size)}
    order = stratified_order(classes, seed, len(classes))
    for end in range(1, len(order) + 1):
        for k, size in enumerate(sizes):
            number = sum(image[0] == k for image in order[:end])
            assert abs(number - end * size / len(order)) <= len(sizes) / 2


def test_subsets_are_nested_and_have_the_annotations_of_their_images(
    generated_root, tmp_path, capsys
):
    root = tmp_path / "root"
    shutil.copytree(generated_root, root)
    subset_dataset.main([str(root), "6", "3"])
    whole, six, three = (
        json.loads((root / name).read_text())
        for name in ("pascal_train.json", "pascal_train_6.json", "pascal_train_3.json")
    )
    ids = [{image["id"] for image in part["images"]} for part in (three, six, whole)]
    assert [len(part) for part in ids[:2]] == [3, 6]
    assert ids[0] < ids[1] < ids[2]
    for part in (three, six):
        assert part["categories"] == whole["categories"]
        images = {image["id"] for image in part["images"]}
        assert part["annotations"] == [a for a in whole["annotations"] if a["image_id"] in images]
    capsys.readouterr()
    for sizes, message in ((["3"], "is there already"), (["4", "999"], "999 pictures: ")):
        with pytest.raises(SystemExit, match="2"):
            subset_dataset.main([str(root), *sizes])
        assert message in capsys.readouterr().err
    assert not (root / "pascal_train_4.json").exists()


def write_set(root, file_names: list[str], classes: list[int]) -> None:
    """Images of a class each; noise where there is no such file yet."""
    (root / "train_images").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, (name, category) in enumerate(zip(file_names, classes, strict=True), start=1):
        path = root / "train_images" / name
        if not path.exists():
            noise = np.random.default_rng(number).integers(0, 255, (40, 60), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        images.append({"id": number, "file_name": name, "height": 40, "width": 60})
        mask = {"segmentation": [[1, 1, 20, 1, 20, 20]], "bbox": [1, 1, 19, 19], "area": 180}
        found = {"id": number, "image_id": number, "category_id": category, "iscrowd": 0}
        annotations.append({**found, **mask})
    categories = [{"id": number, "name": f"class {number}"} for number in sorted(set(classes))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "pascal_train.json").write_text(json.dumps(content))


@pytest.mark.parametrize("option", [[], ["--identical-only"]])
def test_images_of_one_file_are_kept_and_stay_together(tmp_path, option):
    names = [f"{number}.png" for number in (1, 1, 2, 2, 2, 3, 4, 5, 6, 7)]
    write_set(tmp_path, names, [1] * 10)
    split_dataset.main([str(tmp_path), "--share", "0.3", *option])
    parts = [
        json.loads((tmp_path / name).read_text())
        for name in ("pascal_train_split.json", "pascal_val.json")
    ]
    ids = [{image["id"] for image in part["images"]} for part in parts]
    files = [{image["file_name"] for image in part["images"]} for part in parts]
    assert ids[0] | ids[1] == set(range(1, 11)) and not ids[0] & ids[1]
    assert not files[0] & files[1]
    assert sum(len(part["annotations"]) for part in parts) == 10


def test_an_empty_part_is_refused(tmp_path, capsys):
    write_set(tmp_path, [f"{number}.png" for number in range(4)], [1, 2, 3, 4])
    with pytest.raises(SystemExit, match="2"):
        split_dataset.main([str(tmp_path)])
    assert "none of 4 images would be for validation" in capsys.readouterr().err
    assert (
        not list(tmp_path.glob("pascal_*_*.json")) and not (tmp_path / "pascal_val.json").exists()
    )
    split_dataset.main([str(tmp_path), "--share", "0.5"])


def test_what_is_the_same_is_found_without_decoding(tmp_path, monkeypatch):
    write_set(tmp_path, [f"{number}.png" for number in range(8)], [1] * 8)
    monkeypatch.setattr("project.data.checking.dataset.difference_hash", None)
    split_dataset.main([str(tmp_path), "--share", "0.3", "--identical-only"])


def test_pictures_of_a_fixed_camera_are_refused_or_split_all_the_same(tmp_path, capsys):
    rng = np.random.default_rng(0)
    background = Image.fromarray(rng.integers(0, 255, (9, 12), dtype=np.uint8)).resize((60, 40))
    (tmp_path / "train_images").mkdir()
    for number in range(1, 11):
        picture = background.copy()
        picture.putpixel((number, 1), 0)
        picture.save(tmp_path / f"train_images/{number}.png")
    write_set(tmp_path, [f"{number}.png" for number in range(1, 11)], [1] * 10)
    with pytest.raises(SystemExit, match="2"):
        split_dataset.main([str(tmp_path), "--share", "0.3"])
    assert "0 of 10 images would be for validation" in capsys.readouterr().err
    assert not (tmp_path / "pascal_val.json").exists()
    split_dataset.main([str(tmp_path), "--share", "0.3", "--identical-only"])
    assert len(json.loads((tmp_path / "pascal_val.json").read_text())["images"]) == 3
    half = (tmp_path / "train_images/3.png").read_bytes()[:200]
    (tmp_path / "train_images/3.png").write_bytes(half)
    with pytest.raises(SystemExit, match="2"):
        split_dataset.main([str(tmp_path), "--overwrite"])
    assert "3.png cannot be decoded" in capsys.readouterr().err
