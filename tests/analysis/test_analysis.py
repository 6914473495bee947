"""Costs are those that can be counted by hand; anchors fit as they do in the RPN."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, ImageList, pairwise_iou

from project.analysis.anchors import fit_anchors
from project.analysis.cost import count_cost
from project.data.mapper import build_mapper
from scripts import analyze_model
from tests.helpers import SMALL_CONFIG, load_small_config

FLOAT32 = ["MODEL.INFERENCE_DTYPE", "float32", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


@pytest.fixture
def cfg(small_opts):
    return load_small_config([*small_opts, *FLOAT32])


def test_parts_add_up_to_the_model(cfg):
    model = build_model(cfg)
    cost = count_cost(model, (96, 128))
    assert cost.total.parameters == sum(p.numel() for p in model.parameters())
    body = sum(p.numel() for p in model.backbone.bottom_up.parameters())
    assert cost.parts["body"].parameters == body
    assert all(p.flop > 0 and p.activations > 0 for n, p in cost.parts.items() if n != "rest")
    assert cost.parts["rest"].parameters == 0


def test_flop_is_that_of_the_layers(cfg):
    cost = count_cost(build_model(cfg), (96, 128))
    # FPN: a 1 x 1 convolution on each feature of the body, a 3 x 3 one on each of its own.
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    cells = [24 * 32, 12 * 16, 6 * 8, 3 * 4]
    lateral = sum(n * c * channels for n, c in zip(cells, (24, 40, 112, 320), strict=True))
    assert cost.parts["FPN"].flop == pytest.approx(lateral + sum(cells) * channels**2 * 9, rel=0.02)
    # RPN: 3 x 3, then 1 x 1 to 3 anchors with a logit and 4 deltas, on five levels.
    per_cell = channels**2 * 9 + channels * 3 * 5
    assert cost.parts["RPN"].flop == pytest.approx((sum(cells) + 2 * 2) * per_cell, rel=0.02)


def test_heads_cost_by_the_number_of_proposals(cfg):
    costs = {}
    for number in (10, 20):
        cfg.MODEL.RPN.POST_NMS_TOPK_TEST = number
        torch.manual_seed(0)
        costs[number] = count_cost(build_model(cfg), (96, 128))
        assert costs[number].proposals == number and costs[number].detections > 0
    ratio = costs[20].parts["box heads"].flop / costs[10].parts["box heads"].flop
    assert ratio == pytest.approx(2)
    assert costs[20].parts["body"] == costs[10].parts["body"]


def test_anchors_are_those_of_the_rpn(cfg):
    records = DatasetCatalog.get("tiny_voc_train")
    fit = fit_anchors(cfg, records)
    model = build_model(cfg).eval()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (96,), cfg.INPUT.MAX_SIZE_TEST
    cfg.INPUT.RANDOM_FLIP = "none"
    mapper = build_mapper(cfg, is_train=True)
    ious, levels, classes = [], [], []
    for record in records:
        picture = mapper(record)
        images = model.preprocess_image([picture])
        assert isinstance(images, ImageList)
        with torch.no_grad():
            features = model.backbone(images.tensor)
        rpn = model.proposal_generator
        anchors = rpn.anchor_generator([features[name] for name in rpn.in_features])
        best, index = pairwise_iou(picture["instances"].gt_boxes, Boxes.cat(anchors)).max(dim=1)
        bounds = np.cumsum([len(boxes) for boxes in anchors])
        ious += best.tolist()
        levels += np.searchsorted(bounds, index.numpy(), side="right").tolist()
        classes += picture["instances"].gt_classes.tolist()
    assert len(fit.ious) == len(ious) > 20
    assert np.allclose(fit.ious, ious, atol=1e-4)
    assert fit.levels.tolist() == levels and fit.classes.tolist() == classes


def test_anchors_that_reach_out_of_the_picture_do_not_count_where_they_do_not_train(cfg):
    box = {"bbox": [0, 0, 60, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"height": 20, "width": 60, "annotations": [box]}
    assert fit_anchors(cfg, [record]).ious[0] > 0
    cfg.MODEL.RPN.BOUNDARY_THRESH = 0
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[256]] * 5  # the picture becomes 32 pixels high
    assert fit_anchors(cfg, [record]).ious[0] == 0


def test_no_objects_have_no_anchors(cfg):
    record = {"height": 50, "width": 60, "annotations": []}
    assert len(fit_anchors(cfg, [record]).ious) == 0


def test_the_program_prints_both(generated_root, capsys):
    recipe = ["--config-file", str(SMALL_CONFIG)]
    analyze_model.main([*recipe, "--size", "96", "128"])
    output = capsys.readouterr().out
    assert "96 x 128" in output and "mask heads" in output
    analyze_model.main([*recipe, "--anchors", "DATASETS.ROOT", str(generated_root)])
    output = capsys.readouterr().out
    assert "best anchor on p6" in output and "0.7 and more" in output
    for arguments, message in ((["--size", "8", "8"], "32 pixels"), (["A.B", "1"], "A.B")):
        with pytest.raises(SystemExit, match="2"):
            analyze_model.main([*recipe, *arguments])
        assert message in capsys.readouterr().err
