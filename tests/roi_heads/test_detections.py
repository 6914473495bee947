"""Detections are those that Detectron2 finds."""

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image

from project.roi_heads import detections
from project.roi_heads.detections import find_detections

SIZE = (90, 120)


def predictions(seed: int, rois: int = 300, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    corners = torch.rand(rois, 2) * 110 - 5
    boxes = torch.cat([corners, corners + 5 + torch.rand(rois, 2) * 30], dim=1)
    return boxes, (torch.randn(rois, classes + 1) * 3).softmax(dim=1)


def assert_same(boxes, scores, *limits) -> int:
    found = find_detections(boxes, scores, SIZE, *limits)
    expected, _ = fast_rcnn_inference_single_image(boxes, scores, SIZE, *limits)
    assert found.image_size == SIZE
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    return len(found)


@pytest.mark.parametrize("score_thresh", [0.0, 0.05, 0.9, 1.0])
@pytest.mark.parametrize("topk", [100, 5, -1, 0])
@pytest.mark.parametrize("candidates", [40, 2000])
def test_they_are_detectron2s(monkeypatch, score_thresh, topk, candidates):
    monkeypatch.setattr(detections, "NUM_CANDIDATES", candidates)
    number = assert_same(*predictions(0), score_thresh, 0.5, topk)
    assert (number > 0) == (score_thresh < 1 and topk != 0)


def test_where_the_most_certain_candidates_suppress_each_other_the_others_are_looked_at():
    boxes, scores = predictions(1, rois=3000, classes=3)
    boxes[:] = boxes[:1]
    boxes[-1] += 60  # far from the others, and the least certain of all
    scores[-1] = torch.tensor([0.01, 0.01, 0.01, 0.97])
    assert assert_same(boxes, scores, 0.0, 0.5, 100) == 6


def test_what_is_not_finite_is_none():
    boxes, scores = predictions(2)
    boxes[:50, 1] = torch.nan
    boxes[50:60, 2] = torch.inf
    scores[60:70, 3] = torch.nan
    assert assert_same(boxes, scores, 0.05, 0.5, 100) > 50
    boxes[:] = torch.nan
    assert assert_same(boxes, scores, 0.05, 0.5, 100) == 0


def test_without_proposals_there_are_none():
    assert assert_same(torch.zeros(0, 4), torch.zeros(0, 8), 0.05, 0.5, 100) == 0
