"""What an evaluation in training shows: a panel of predictions, and the share of empty masks."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from project.engine import Trainer
from project.engine.trainer import categories_of
from project.evaluation.coco_results import share_of_empty_masks
from project.evaluation.evaluator import EMPTY_MASKS, COCOInstanceEvaluator
from project.visualization.contact_sheet import prediction_sheet
from tests.helpers import load_small_config

DATASET = "tiny_voc_test_annotated"


@pytest.fixture
def root(generated_root, tmp_path):
    """Data that a test may change."""
    shutil.copytree(generated_root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cfg(small_opts, root):
    """The small recipe, whose data sets are registered."""
    return load_small_config([*small_opts, "DATASETS.ROOT", str(root)])


def evaluate(cfg, root, **kwargs) -> tuple[EventStorage, dict, list[dict]]:
    """With two detections in each picture: one of the whole of it, one without a pixel.

    Returns:
        The event storage, the results and the detections in COCO's format.
    """
    storage = EventStorage(7)
    evaluator = COCOInstanceEvaluator(
        DATASET, categories_of(DATASET), cfg.OUTPUT_DIR, storage=storage, **kwargs
    )
    evaluator.reset()
    for image in json.loads((root / "test_annotations.json").read_text())["images"]:
        size = image["height"], image["width"]
        found = Instances(size, scores=torch.tensor([0.9, 0.8]), pred_classes=torch.tensor([0, 1]))
        found.pred_boxes = Boxes(torch.tensor([[0.0, 0, size[1], size[0]]] * 2))
        found.pred_masks = torch.stack([torch.ones(size).bool(), torch.zeros(size).bool()])
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    return storage, evaluator.evaluate(), evaluator.detections


@pytest.mark.parametrize("images", [1, 4, 50])
def test_the_panel_is_a_sheet_of_the_predictions(cfg, root, images):
    storage, _, detections = evaluate(cfg, root, panel_images=images)
    ((name, panel, iteration),) = storage._vis_data
    assert (name, iteration) == (f"predictions/{DATASET}", 7)
    assert panel.dtype == np.uint8 and panel.shape[0] == 3
    truth = json.loads((root / "test_annotations.json").read_text())
    layout = {"num_images": min(images, 6), "columns": 2}
    expected = prediction_sheet(truth, root / "test_images", detections, **layout)
    assert np.array_equal(panel.transpose(1, 2, 0), expected)
    nothing_found = prediction_sheet(truth, root / "test_images", [], **layout)
    assert not np.array_equal(expected, nothing_found)


def test_no_pictures_are_no_panel(cfg, root):
    storage, _, _ = evaluate(cfg, root, panel_images=0)
    assert storage._vis_data == []


def test_a_picture_that_cannot_be_drawn_ends_nothing(cfg, root, caplog):
    for path in (root / "test_images").iterdir():
        path.write_bytes(path.read_bytes()[:-200])  # its header says all that is asked before
    with caplog.at_level(logging.WARNING, logger="project"):
        storage, results, _ = evaluate(cfg, root, panel_images=4)
    assert storage._vis_data == [] and results["segm"]["AP"] >= 0
    (line,) = [x.getMessage() for x in caplog.records if "panel" in x.getMessage()]
    assert DATASET in line and "cannot be read" in line


def test_the_share_of_empty_masks_is_that_of_the_most_certain(cfg, root):
    storage, _, detections = evaluate(cfg, root)
    assert storage.latest()[EMPTY_MASKS] == (0.5, 7)
    assert share_of_empty_masks(detections, number=6) == 0
    assert share_of_empty_masks(detections[1::2]) == 1


def test_only_in_training_and_for_the_first_set_there_is_a_storage(cfg):
    cfg.DATASETS.TEST = (DATASET, "tiny_voc_train")
    cfg.TEST.PANEL_IMAGES = 3
    with EventStorage() as storage:
        first, second = (Trainer.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST)
        assert first.storage is storage and second.storage is None
        assert first.panel_images == 3
    assert Trainer.build_evaluator(cfg, DATASET, in_training=False).storage is None
