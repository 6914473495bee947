"""Every defect of a data set is named with its place; the repaired copy can be trained on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

import train_net
from project.config import load_config
from project.data.categories import read_categories
from project.data.checking.masks import decode_counts, inspect_mask
from project.data.checking.problems import KINDS, Severity
from project.data.coco_records import coco_records
from project.data.datasets import require_dataset, require_sound
from project.data.mapper import build_mapper
from project.data.segmentation import compressed_rle, uncompressed_rle
from project.errors import UserError
from scripts import check_dataset
from tests.data.defects import CORPUS, HEIGHT, WIDTH, make, whole_content, write_pictures
from tests.helpers import REPOSITORY, SMALL_CONFIG, load_small_config


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
