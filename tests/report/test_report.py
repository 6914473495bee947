"""The report says what the run's files say, and shows its pictures."""

import copy
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from project.data.categories import Categories
from project.errors import UserError
from project.evaluation.coco_metrics import IOU_TYPES, evaluate_detections
from project.evaluation.error_analysis import Kind, Truth
from project.report.curves import _curve
from project.report.gallery import _path, choose_pictures, gallery_records
from project.report.page import render_report
from project.report.runs import JudgedPicture, load_run
from project.report.tables import classes_table
from scripts import report
from tests.report.conftest import rewrite


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_run_is_read_whole(trained, generated_root):
    run = load_run(trained)
    assert run.dataset == "tiny_voc_test_annotated" and len(run.pictures) == 6
    assert run.record["exit"] == "finished"
    assert any(line.get("total_loss", 0) > 0 for line in run.metrics)
    assert "build_timm_fpn_backbone" in run.config
    kinds = [found.kind for found in run.errors.detections]
    assert Kind.CORRECT in kinds and Kind.CLASSIFICATION in kinds
    number = sum(len(picture.objects) for picture in run.pictures.values())
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    assert number == len(truth["annotations"])


def test_quality_is_that_of_the_equation(trained):
    run = load_run(trained)
    for picture in run.pictures.values():
        correct = [found for found in picture.found if found.kind is Kind.CORRECT]
        wrong = len(picture.found) - len(correct)
        missed = len(picture.objects) - len(correct)
        assert missed == len(picture.missed)
        expected = sum(x.iou for x in correct) / (len(correct) + wrong / 2 + missed / 2)
        assert picture.quality == pytest.approx(expected)
    assert 0 < np.mean([picture.quality for picture in run.pictures.values()]) < 1


def test_the_page_holds_what_was_found_and_needs_no_other_file(trained):
    run = load_run(trained)
    page = render_report(run)
    data = data_of(page)
    assert [picture["quality"] for picture in data["pictures"]] == sorted(
        picture["quality"] for picture in data["pictures"]
    )
    for record in data["pictures"]:
        picture = run.pictures[record["id"]]
        assert [f["kind"] for f in record["found"]] == [f.kind for f in picture.found]
        missed = sum(item["kind"] == "missed" for item in record["objects"])
        assert missed == len(picture.missed)
        assert all(item["path"].startswith("M") for item in record["found"])
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert all(address.startswith("#") for address in addresses)
    for words in ("Precision and recall", "Calibration", "AP over time", "Losses", "missed"):
        assert words in page
    ap = f"{run.evaluation['segm']['AP50']:.2f}"
    assert ap in page and run.record["versions"]["torch"] in page


def test_outlines_lie_on_the_objects(trained):
    run = load_run(trained)
    (record,) = gallery_records([next(iter(run.pictures.values()))], run, None)
    picture = run.pictures[record["id"]]
    scale = record["width"] / picture.image["width"]
    by_id = {a["id"]: a for a in run.coco_json["annotations"]}
    boxes = [a["bbox"] for a in by_id.values() if a["image_id"] == record["id"]]
    for item, (x, y, width, height) in zip(record["objects"], boxes, strict=True):
        numbers = np.array(re.findall(r"[\d.]+", item["path"]), dtype=float).reshape(-1, 2)
        expected = np.array([x, y, x + width, y + height]) * scale
        found = [*numbers.min(axis=0), *numbers.max(axis=0)]
        assert np.allclose(found, expected, atol=2)


def test_of_many_pictures_the_worst_and_the_best_are_shown(trained):
    run = load_run(trained)
    ordered = sorted(picture.quality for picture in run.pictures.values())
    chosen = [picture.quality for picture in choose_pictures(run, 5)]
    assert chosen == [*ordered[:4], ordered[-1]]
    assert len(choose_pictures(run, 6)) == 6
    assert [picture.quality for picture in choose_pictures(run, 1)] == ordered[:1]
    page = render_report(run, max_pictures=5)
    assert len(data_of(page)["pictures"]) == 5 and "5 of 6 pictures are here" in page


def test_two_runs_are_set_side_by_side(trained, generated_root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    rewrite(other, generated_root, lambda number: 0.01 * (number + 1))
    page = render_report(load_run(trained), load_run(other))
    data = data_of(page)
    assert data["compares"] and all("otherQuality" in p for p in data["pictures"])
    assert "this run" in page and "other" in page
    same = data_of(render_report(load_run(trained), load_run(trained)))
    assert all(p["quality"] == p["otherQuality"] for p in same["pictures"])
    assert all(p["found"] == p["other"] for p in same["pictures"])


def test_runs_on_other_pictures_or_classes_are_not_compared(trained):
    run = load_run(trained)
    fewer = {**run.coco_json, "images": run.coco_json["images"][1:]}
    with pytest.raises(UserError, match="other pictures"):
        render_report(run, dataclasses.replace(run, coco_json=fewer))
    renamed = Categories.from_mapping({**run.categories.to_mapping(), 1: "else"})
    with pytest.raises(UserError, match="differ in their classes"):
        render_report(run, dataclasses.replace(run, categories=renamed))


def test_classes_of_one_name_are_kept_apart(trained):
    run = load_run(trained)
    categories = Categories.from_mapping({**run.categories.to_mapping(), 1: "thing", 2: "thing"})
    precision = {
        iou_type: evaluate_detections(run.coco_json, run.detections, iou_type, categories)
        for iou_type in IOU_TYPES
    }
    evaluation = {**run.evaluation, **{t: value.to_json() for t, value in precision.items()}}
    renamed = dataclasses.replace(run, categories=categories, evaluation=evaluation)
    rows = classes_table(renamed, None)
    assert [row["name"] for row in rows[:3]] == [
        "thing (id 1)",
        "thing (id 2)",
        run.categories.names[2],
    ]
    for row, as_before in zip(rows, classes_table(run, None), strict=True):
        assert row["objects"] == as_before["objects"] and row["errors"] == as_before["errors"]
    assert data_of(render_report(renamed))["classes"] == [row["name"] for row in rows]


def test_names_cannot_break_the_page(trained, tmp_path):
    run = load_run(trained)
    evil = "</script><script>alert(1)</script>.jpg"
    content = copy.deepcopy(run.coco_json)
    for image in content["images"]:
        shutil.copy(run.image_root / image["file_name"], tmp_path)
    image = content["images"][0]
    (tmp_path / evil).parent.mkdir(parents=True)
    (tmp_path / image["file_name"]).rename(tmp_path / evil)
    image["file_name"] = evil
    run = dataclasses.replace(run, coco_json=content, image_root=tmp_path, config=evil)
    page = render_report(run)
    assert evil not in page
    assert evil in {picture["file"] for picture in data_of(page)["pictures"]}


def test_a_cut_off_line_of_metrics_is_left_out(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    with (folder / "metrics.json").open("a") as file:
        file.write('{"iteration": 7, "total_l')
    assert load_run(folder).metrics == load_run(trained).metrics
    for name in ("metrics.json", "run.json", "config.yaml"):  # only evaluated there
        (folder / name).unlink()
    page = render_report(load_run(folder))
    assert "There is no metrics.json" in page


def test_the_program_writes_the_file(trained, tmp_path, capsys):
    path = tmp_path / "report.html"
    report.main([str(trained), "--output", str(path)])
    assert path.read_text().startswith("<!doctype html>")
    assert "report.html" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        report.main([str(trained), "--output", str(path)])
    report.main([str(trained), "--output", str(path), "--overwrite", "--compare", str(trained)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "evaluation.json").unlink(), "no evaluation.json"),
        (lambda run: (run / "evaluation.json").write_text("{"), "not valid JSON"),
        (lambda run: shutil.rmtree(run / "inference"), "cannot be read"),
        (lambda run: shutil.rmtree(run), "no folder"),
    ],
)
def test_what_is_missing_is_one_line(trained, tmp_path, capsys, damage, message):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    damage(folder)
    with pytest.raises(SystemExit, match="2"):
        report.main([str(folder)])
    assert message in capsys.readouterr().err


def test_detections_of_another_evaluation_are_named(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    path = folder / "inference/tiny_voc_test_annotated/detections.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(UserError, match="is not what the AP"):
        load_run(folder)


def test_data_that_are_gone_or_changed_are_named(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    path = folder / "inference/tiny_voc_test_annotated/dataset.json"
    source = json.loads(path.read_text())
    for changed in ({"num_images": 3}, {"json_sha256": "0" * 64}):
        path.write_text(json.dumps({**source, **changed}))
        with pytest.raises(UserError, match="has changed"):
            load_run(folder)
    path.write_text(json.dumps({**source, "json": "/nowhere.json"}))
    with pytest.raises(UserError, match="no longer there"):
        load_run(folder)
    with pytest.raises(UserError, match="no evaluation on 'other'"):
        load_run(folder, "other")


@pytest.mark.parametrize("side", [1, 3, 16])
def test_an_object_that_is_too_small_to_have_an_outline_is_drawn_as_a_box(side):
    mask = np.zeros((4000, 3000), dtype=np.uint8, order="F")
    mask[1000 : 1000 + side, 600 : 600 + side] = 1
    item = Truth(1, 1, coco_mask.encode(mask))
    picture = JudgedPicture({"height": 4000, "width": 3000}, [], [item])
    numbers = re.findall(r"[\d.]+", _path(item, picture, (480, 360)))
    corners = np.array(numbers, dtype=float).reshape(-1, 2)
    assert np.allclose(corners.min(axis=0), [72, 120], atol=1.5)
    assert (np.ptp(corners, axis=0) >= 1.5).all()


def test_a_curve_goes_on_where_a_further_test_set_gave_it_another_name():
    lines = [{"iteration": 1, "segm/AP": 5.0}, {"iteration": 2, "val/segm/AP": 6.0}]
    assert _curve(lines, "segm/AP", "val/segm/AP") == ((1, 2), (5.0, 6.0))
