"""Registered data sets: ids, categories, kinds of segmentation, and mistakes found early."""

import copy
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.dataset_mapper import DatasetMapper

from project.config import get_project_cfg
from project.data.categories import Categories
from project.data.coco_json import read_coco_json
from project.data.datasets import (
    dataset_files,
    has_annotations,
    register_datasets,
    require_dataset,
    require_sound,
    resolve_categories,
    warn_of_common_pictures,
)
from project.data.segmentation import compressed_rle, polygons, uncompressed_rle
from project.errors import UserError
from scripts import show_dataset

MASK = np.zeros((40, 50), dtype=bool)
MASK[10:30, 5:25] = True


def coco_json() -> dict:
    """Three pictures, categories out of order and with gaps, every kind of segmentation."""
    outlines = [polygons(MASK), compressed_rle(MASK), uncompressed_rle(MASK), compressed_rle(MASK)]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in (90, 7, 31)
        ],
        "categories": [{"id": 30, "name": "zebra"}, {"id": 4, "name": "ant"}],
        "annotations": [
            {
                "id": 100 + number,
                "image_id": 7 if number < 3 else 31,
                "category_id": (4, 30)[number % 2],
                "segmentation": outline,
                "bbox": [5, 10, 20, 20],
                "area": 400,
                "iscrowd": int(number == 3),
            }
            for number, outline in enumerate(outlines)
        ],
    }


def write(cfg, content, name: str = "labels.json") -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (Path(cfg.DATASETS.ROOT) / name).write_text(text)


@pytest.fixture
def custom(tmp_path):
    """A config for a data set of its own layout; :func:`write` replaces its JSON."""
    (tmp_path / "pictures").mkdir()
    for image_id in (90, 7, 31):
        cv2.imwrite(str(tmp_path / f"pictures/{image_id}.jpg"), np.zeros((40, 50, 3), np.uint8))
    cfg = get_project_cfg()
    cfg.DATASETS.ROOT = str(tmp_path)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("custom_train",), ("custom_test",)
    cfg.DATASETS.TRAIN_JSON = cfg.DATASETS.TEST_JSON = "labels.json"
    cfg.DATASETS.TRAIN_IMAGES = cfg.DATASETS.TEST_IMAGES = "pictures"
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT = True, "bitmask"

    write(cfg, coco_json())
    return cfg


def test_ids_are_mapped_in_order_and_kept_for_the_way_back(custom):
    categories = resolve_categories(custom, None, must_agree=False)
    assert categories == Categories((4, 30), ("ant", "zebra"))
    register_datasets(custom, categories)
    records = DatasetCatalog.get("custom_train")
    assert sorted(record["image_id"] for record in records) == [7, 31, 90]
    by_id = {record["image_id"]: record["annotations"] for record in records}
    assert [a["category_id"] for a in by_id[7]] == [0, 1, 0]
    assert by_id[90] == []  # a picture without objects is kept
    assert by_id[31][0]["iscrowd"] == 1
    assert MetadataCatalog.get("custom_train").thing_classes == ["ant", "zebra"]


def test_polygons_and_both_kinds_of_rle_give_the_same_masks(custom):
    register_datasets(custom, resolve_categories(custom, None, must_agree=False))
    mapper = DatasetMapper(custom, is_train=True)
    mapper.augmentations.augs = []  # at the picture's own size
    record = next(r for r in DatasetCatalog.get("custom_train") if r["image_id"] == 7)
    masks = mapper(copy.deepcopy(record))["instances"].gt_masks.tensor.numpy()
    assert masks.shape == (3, 40, 50)
    assert all(np.array_equal(mask, MASK) for mask in masks)


def test_registering_again_takes_the_new_root(custom, generated_root):
    register_datasets(custom, Categories((4, 30), ("ant", "zebra")))
    custom.DATASETS.ROOT = str(generated_root)
    register_datasets(custom, Categories.from_mapping({i: str(i) for i in range(1, 21)}))
    assert str(generated_root) in MetadataCatalog.get("tiny_voc_train").json_file
    assert "custom_train" not in DatasetCatalog


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "not valid JSON"),
        ("[]", "not in COCO format"),
        ('{"images": [], "categories": [{"id": 1}]}', "category-name-missing"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category-id-twice",
        ),
        ('{"images": [], "categories": [{"id": "x20", "name": "a"}]}', "category-id-type"),
        ('{"images": [], "categories": [{"id": 1.7, "name": "a"}]}', "category-id-type"),
        ('{"images": [], "categories": [{"id": null, "name": "a"}]}', "category-id-missing"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}',
            "category-id-twice",
        ),
        ('{"images": [], "categories": null}', "no categories"),
        ('{"images": []}', "no categories"),
    ],
)
def test_a_wrong_json_is_one_line(custom, content, message):
    write(custom, content)
    with pytest.raises(UserError, match=message) as caught:
        resolve_categories(custom, None, must_agree=False)
    assert "labels.json" in str(caught.value) and "\n" not in str(caught.value)


def test_categories_with_errors_are_left_out_with_skip_bad(custom):
    content = coco_json()
    content["categories"] += [{"id": "x20", "name": "bird"}, {"id": "9", "name": "cat"}]
    write(custom, content)
    with pytest.raises(UserError, match=r"1 x category-id-type \(category x20\)"):
        resolve_categories(custom, None, must_agree=False)
    custom.DATASETS.SKIP_BAD = True
    expected = Categories((4, 9, 30), ("ant", "cat", "zebra"))
    assert resolve_categories(custom, None, must_agree=False) == expected
    content["categories"][2]["id"] = "--3"
    write(custom, content)
    assert resolve_categories(custom, None, must_agree=False) == expected


@pytest.mark.parametrize("name", ["sheet", "sheet.pdf"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, name):
    with pytest.raises(SystemExit, match="2"):
        show_dataset.main([str(tmp_path / "nowhere"), "--output", str(tmp_path / name)])
    assert "pictures of this type cannot be written" in capsys.readouterr().err


def test_an_annotation_of_no_category_is_named(custom):
    content = coco_json()
    content["annotations"][0]["category_id"] = 5
    write(custom, content)
    with pytest.raises(UserError, match=r"category-unknown \(.*image 7, annotation"):
        require_sound(require_dataset(custom, "custom_train"), skip_bad=False)


def test_missing_pictures_are_named_before_anything_else(custom):
    content = coco_json()
    content["images"].append({"id": 8, "file_name": "gone.jpg", "height": 1, "width": 1})
    write(custom, content)
    with pytest.raises(UserError, match=r"1 x image-missing \(gone\.jpg, image 8\)"):
        require_sound(require_dataset(custom, "custom_train"), skip_bad=False)


def test_names_and_places_that_are_not_there(custom, tmp_path):
    with pytest.raises(UserError, match="no data set 'coco'"):
        require_dataset(custom, "coco")
    with pytest.raises(UserError, match=r"pascal_train\.json"):
        require_dataset(custom, "tiny_voc_train")
    custom.DATASETS.ROOT = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected labels\.json and pictures/"):
        require_dataset(custom, "custom_train")
    custom.DATASETS.TRAIN_JSON = ""
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN_JSON"):
        require_dataset(custom, "custom_train")


def test_absolute_paths_need_no_root(custom, tmp_path):
    files = dataset_files(custom)["custom_train"]
    custom.DATASETS.TRAIN_JSON = str(files.json_file.absolute())
    custom.DATASETS.TRAIN_IMAGES = str(files.image_root.absolute())
    custom.DATASETS.ROOT = str(tmp_path / "nothing")
    assert require_dataset(custom, "custom_train").json_file == files.json_file.absolute()


def test_pictures_that_are_trained_and_tested_on_are_counted(custom, caplog):
    test = {**coco_json(), "images": coco_json()["images"][:2]}
    test["annotations"] = test["annotations"][:3]
    write(custom, test, "test.json")
    custom.DATASETS.TEST_JSON = "test.json"
    warn_of_common_pictures(custom)
    assert "2 of the 2 pictures of custom_test are trained on" in caplog.text
    caplog.clear()
    shutil.copytree(Path(custom.DATASETS.ROOT) / "pictures", Path(custom.DATASETS.ROOT) / "others")
    custom.DATASETS.TEST_IMAGES = "others"  # pictures of the same names
    warn_of_common_pictures(custom)
    assert not caplog.records


def test_what_is_said_to_be_repaired_is(custom, caplog):
    content = coco_json()
    whole = content["annotations"][0]["bbox"]
    content["annotations"][0]["bbox"] = [0.1, 0.1, 0.2, 0.2]  # fractions of the size
    content["categories"].append({"id": 99, "name": content["categories"][0]["name"]})
    write(custom, content)
    register_datasets(custom, resolve_categories(custom, None, must_agree=False))
    require_sound(dataset_files(custom)["custom_train"], skip_bad=False)
    repaired, others = (x.getMessage() for x in caplog.records if x.levelname == "WARNING")
    assert "repaired when loaded: 1 x bbox-differs" in repaired
    assert "to look at: 1 x category-name-twice" in others
    records = {r["image_id"]: r["annotations"] for r in DatasetCatalog.get("custom_train")}
    found = records[content["annotations"][0]["image_id"]][0]["bbox"]
    assert np.allclose(found, whole, atol=1)


def test_categories_come_from_the_data_then_the_checkpoint_then_the_test_set(custom, tmp_path):
    other = {"1": "x", "2": "y"}
    data = resolve_categories(custom, other, must_agree=False)
    assert data.names == ("ant", "zebra")
    with pytest.raises(UserError, match="disagree"):
        resolve_categories(custom, other, must_agree=True)
    custom.DATASETS.TRAIN = ("tiny_voc_train",)  # which is not there
    custom.DATASETS.TEST = ()
    assert resolve_categories(custom, other, must_agree=True).names == ("x", "y")
    custom.DATASETS.TEST = ("custom_test",)
    assert resolve_categories(custom, None, must_agree=True).names == ("ant", "zebra")
    with pytest.raises(UserError, match="disagree"):
        resolve_categories(custom, other, must_agree=True)


def test_a_test_set_may_lack_categories_but_not_rename_them(custom):
    custom.DATASETS.TEST_JSON = "test.json"
    content = coco_json()
    content["categories"] = content["categories"][:1]
    write(custom, content, "test.json")
    assert resolve_categories(custom, None, must_agree=True).names == ("ant", "zebra")
    content["categories"][0]["name"] = "horse"
    write(custom, content, "test.json")
    with pytest.raises(UserError, match="horse"):
        resolve_categories(custom, None, must_agree=True)


def test_whether_a_set_has_annotations(custom):
    assert has_annotations(require_dataset(custom, "custom_train"))
    content = coco_json()
    del content["annotations"]
    write(custom, content)
    assert not has_annotations(require_dataset(custom, "custom_train"))


def test_real_photographs_are_read(shared):
    cfg = get_project_cfg()
    cfg.DATASETS.ROOT = str(shared / "data/voc_real")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("tiny_voc_train",), ("tiny_voc_test_annotated",)
    categories = resolve_categories(cfg, None, must_agree=False)
    assert categories.names[0] == "aeroplane" and len(categories.names) == 20
    register_datasets(cfg, categories)
    records = DatasetCatalog.get("tiny_voc_train")
    assert len(records) == 236 and sum(len(r["annotations"]) for r in records) == 470
    for name in ("tiny_voc_train", "tiny_voc_test", "tiny_voc_test_annotated"):
        require_sound(require_dataset(cfg, name), skip_bad=False)


def test_a_json_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_coco_json(tmp_path)


def test_a_misspelt_file_elsewhere_is_not_blamed_on_the_root(tmp_path):
    cfg = get_project_cfg()
    cfg.DATASETS.ROOT = str(tmp_path / "nowhere")
    cfg.DATASETS.TRAIN_JSON = str(tmp_path / "trian.json")
    cfg.DATASETS.TRAIN_IMAGES = str(tmp_path)
    with pytest.raises(UserError, match=r"'custom_train': there is no file .*trian\.json"):
        require_dataset(cfg, "custom_train")


@pytest.mark.parametrize("has_pictures", [True, False])
def test_a_set_without_a_picture_is_refused_before_the_work(custom, has_pictures):
    write(custom, coco_json() if has_pictures else {**coco_json(), "images": [], "annotations": []})
    custom.DATASETS.TRAIN_IMAGES = "empty"
    (Path(custom.DATASETS.ROOT) / "empty").mkdir()
    expected = "no picture is left" if has_pictures else "no picture$"
    with pytest.raises(UserError, match=expected):
        require_sound(require_dataset(custom, "custom_train"), skip_bad=True)
