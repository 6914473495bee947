"""AP against pycocotools' own, the edge cases that it has none for, and the submission file."""

import contextlib
import io
import json
import math
import os

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from project.data.categories import Categories
from project.data.segmentation import compressed_rle, decode_segmentation
from project.data.synthetic import render_scene
from project.data.synthetic.dataset import annotation_records, category_records, image_record
from project.errors import UserError
from project.evaluation.coco_metrics import SUMMARY, evaluate_detections
from project.evaluation.coco_results import to_coco_results
from project.evaluation.detections import to_detections
from project.files import check_output_file, require_new_folder, write_json
from project.runtime.detections import Detections

CATEGORIES = Categories.from_mapping({c["id"]: c["name"] for c in category_records()})


def ground_truth(count: int = 8) -> dict:
    images, annotations = [], []
    for index in range(count):
        scene = render_scene(11, "test", index)
        images.append(image_record(scene, "test", index))
        annotations += annotation_records(scene, images[-1]["id"])
    annotations[0]["iscrowd"] = 1
    return {"images": images, "annotations": annotations, "categories": category_records()}


def noisy_detections(truth: dict, seed: int = 0) -> list[dict]:
    """The ground truth, shifted, some missed, some of another class, some twice."""
    rng = np.random.RandomState(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    detections = []
    for annotation in truth["annotations"]:
        for _ in range(rng.randint(0, 3)):
            mask = decode_segmentation(annotation["segmentation"], *sizes[annotation["image_id"]])
            mask = np.roll(mask, rng.randint(-6, 7, size=2), axis=(0, 1))
            x, y, w, h = annotation["bbox"]
            wrong = rng.random_sample() < 0.2
            detections.append(
                {
                    "image_id": annotation["image_id"],
                    "bbox": [x + float(rng.randint(-5, 6)), y, w, h],
                    "score": float(rng.random_sample()),
                    "category_id": rng.randint(1, 21) if wrong else annotation["category_id"],
                    "segmentation": compressed_rle(mask),
                }
            )
    return detections


def pycocotools_stats(truth: dict, detections: list[dict], iou_type: str) -> np.ndarray:
    dropped = "bbox" if iou_type == "segm" else "segmentation"
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = json.loads(json.dumps(truth))
        index.createIndex()
        results = [{k: v for k, v in d.items() if k != dropped} for d in detections]
        evaluation = COCOeval(index, index.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1])
def test_ap_is_that_of_pycocotools(iou_type, seed):
    truth = ground_truth()
    detections = noisy_detections(truth, seed)
    result = evaluate_detections(truth, detections, iou_type, CATEGORIES)
    expected = pycocotools_stats(truth, detections, iou_type)
    ours = [result.summary[name] for name in SUMMARY]
    assert np.allclose(ours, 100 * expected, atol=1e-6)
    assert 0 < result.summary["AP"] < 100
    mean = np.nanmean([value["AP"] for value in result.per_class.values()])
    assert result.summary["AP"] == pytest.approx(mean)
    assert sum(v["instances"] for v in result.per_class.values()) == len(truth["annotations"]) - 1


def test_perfect_detections_have_an_ap_of_100():
    truth = ground_truth()
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    detections = [
        {
            "image_id": a["image_id"],
            "bbox": a["bbox"],
            "score": 1.0,
            "category_id": a["category_id"],
            "segmentation": compressed_rle(
                decode_segmentation(a["segmentation"], *sizes[a["image_id"]])
            ),
        }
        for a in truth["annotations"]
    ]
    for iou_type in ("bbox", "segm"):
        result = evaluate_detections(truth, detections, iou_type, CATEGORIES)
        assert result.summary["AP"] == pytest.approx(100)


def test_annotation_id_0_is_matched_like_any_other():
    truth = ground_truth()
    renumbered = json.loads(json.dumps(truth))
    for number, annotation in enumerate(renumbered["annotations"]):
        annotation["id"] = number
        del annotation["area"]
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    detections = noisy_detections(truth)
    for iou_type in ("bbox", "segm"):
        expected = evaluate_detections(truth, detections, iou_type, CATEGORIES)
        assert evaluate_detections(renumbered, detections, iou_type, CATEGORIES) == expected or (
            # NaN is not equal to itself
            str(evaluate_detections(renumbered, detections, iou_type, CATEGORIES)) == str(expected)
        )


def test_no_detections_are_an_ap_of_zero_and_no_truth_is_none():
    truth = ground_truth(2)
    result = evaluate_detections(truth, [], "segm", CATEGORIES)
    assert result.summary["AP"] == 0
    present = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    for category_id, name in CATEGORIES.to_mapping().items():
        value = result.per_class[name]["AP"]
        assert value == 0 if category_id in present else math.isnan(value)
    as_json = json.dumps(result.to_json(), allow_nan=False)
    assert "null" in as_json


@pytest.mark.parametrize("number", [0, 1])
def test_sizes_that_no_object_has_have_no_ap(number):
    truth = ground_truth()
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 32**2]
    found = noisy_detections(truth)[:number]
    for iou_type in ("bbox", "segm"):
        summary = evaluate_detections(truth, found, iou_type, CATEGORIES).summary
        assert math.isnan(summary["APs"]) and summary["APm"] >= 0


def test_categories_of_one_name_are_kept_apart():
    truth = ground_truth()
    first, second = (a["category_id"] for a in truth["annotations"][1:3])
    assert first != second
    names = {**CATEGORIES.to_mapping(), first: "thing", second: "thing"}
    expected = evaluate_detections(truth, noisy_detections(truth), "bbox", CATEGORIES).per_class
    found = evaluate_detections(
        truth, noisy_detections(truth), "bbox", Categories.from_mapping(names)
    ).per_class
    assert len(found) == len(names) and "thing" not in found
    for category_id in (first, second):
        values = expected[CATEGORIES.to_mapping()[category_id]]
        assert str(found[f"thing (id {category_id})"]) == str(values)


def detections(categories: Categories) -> Detections:
    result = Instances((30, 40))
    result.pred_boxes = Boxes(torch.tensor([[1.5, 2, 11.5, 8], [0, 0, 40, 30]]))
    result.scores = torch.tensor([0.9, 0.25])
    result.pred_classes = torch.tensor([1, 0])
    masks = torch.zeros(2, 30, 40, dtype=torch.bool)
    masks[0, 2:8, 2:11] = True
    masks[1, 1:29] = True
    result.pred_masks = masks
    return to_detections(result, categories)


def test_results_carry_the_ids_of_the_json():
    first, second = to_coco_results(detections(Categories((7, 99), ("a", "b"))), 914)
    assert list(first) == ["image_id", "bbox", "score", "category_id", "segmentation"]
    assert (first["image_id"], first["category_id"], second["category_id"]) == (914, 99, 7)
    assert first["bbox"] == [1.5, 2.0, 10.0, 6.0]
    assert first["segmentation"]["size"] == [30, 40]
    assert isinstance(first["segmentation"]["counts"], str)


def test_the_schema_is_that_of_the_originals_submission(shared):
    theirs = json.loads((shared / "data/seed_submission/mAP_0.38246_0856610.json").read_text())
    ours = json.loads(json.dumps(to_coco_results(detections(CATEGORIES), 914)))

    def schema(value):
        if isinstance(value, dict):
            return {key: schema(item) for key, item in value.items()}
        if isinstance(value, list):
            return [schema(item) for item in value]
        return type(value)

    assert {str(schema(item)) for item in theirs} == {str(schema(item)) for item in ours}


def test_a_folder_that_may_not_be_written_to_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="may not be written to"):
        check_output_file(tmp_path / "a.json", overwrite=False)
    with pytest.raises(UserError, match=r"cannot be made: .* may not be written to"):
        require_new_folder(tmp_path / "a/b")


def test_files_are_written_whole_and_never_over_others(tmp_path):
    path = tmp_path / "a.json"
    check_output_file(path, overwrite=False)
    write_json([1], path)
    assert json.loads(path.read_text()) == [1] and not list(tmp_path.glob("*.tmp"))
    with pytest.raises(UserError, match="there already"):
        check_output_file(path, overwrite=False)
    check_output_file(path, overwrite=True)
    with pytest.raises(UserError, match="no folder"):
        check_output_file(tmp_path / "x/a.json", overwrite=False)
    with pytest.raises(UserError, match="is a folder"):
        check_output_file(tmp_path, overwrite=True)
    (tmp_path / "a.json.tmp").mkdir()  # then nothing can be written, nor taken away
    with pytest.raises(UserError, match=r"a\.json cannot be written"):
        write_json([2], path)
    assert json.loads(path.read_text()) == [1]


@pytest.mark.parametrize("name", ["{:06d}", "picture {}"])
def test_image_ids_may_be_text_and_stay_so(name):
    truth = ground_truth()
    detections = noisy_detections(truth)
    expected = evaluate_detections(truth, detections, "segm", CATEGORIES)
    for image in truth["images"]:
        image["id"] = name.format(image["id"])
    for item in (*truth["annotations"], *detections):
        item["image_id"] = name.format(item["image_id"])
    before = json.dumps(truth)
    assert str(evaluate_detections(truth, detections, "segm", CATEGORIES)) == str(expected)
    assert json.dumps(truth) == before


def test_a_detection_of_another_data_set_is_one_line():
    detections = [{**noisy_detections(ground_truth())[0], "image_id": "gone"}]
    with pytest.raises(UserError, match="a detection is of image_id 'gone'"):
        evaluate_detections(ground_truth(), detections, "bbox", CATEGORIES)


def test_all_of_a_crowded_picture_count():
    boxes = [[9.0 * (k % 20), 9.0 * (k // 20), 8.0, 8.0] for k in range(300)]
    items = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}],
        "annotations": [{**item, "id": k, "area": 64.0} for k, item in enumerate(items)],
        "categories": category_records(),
    }
    detections = [{**item, "score": 1 - k / 1000} for k, item in enumerate(items)]
    result = evaluate_detections(truth, detections, "bbox", CATEGORIES)
    assert result.summary["AP"] == pytest.approx(100)  # COCO's first 100 are a third
