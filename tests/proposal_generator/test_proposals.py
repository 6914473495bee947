"""Proposals are those that Detectron2 finds."""

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes

from project.proposal_generator.proposals import find_top_proposals

SIZES = [(90, 120), (70, 128)]
TRANSFORM = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))


def predictions(seed: int) -> tuple[list[Boxes], list[torch.Tensor], list[torch.Tensor]]:
    """Anchors, logits and deltas of two levels, for two pictures."""
    torch.manual_seed(seed)
    anchors, logits, deltas = [], [], []
    for number, side in ((3000, 12.0), (200, 50.0)):
        centres = torch.rand((number, 2)) * 130 - 5
        anchors.append(Boxes(torch.cat([centres - side / 2, centres + side / 2], dim=1)))
        logits.append(torch.randn((2, number)))
        deltas.append(torch.randn((2, number, 4)) * 0.3)
    return anchors, logits, deltas


def find(anchors, logits, deltas, **options):
    defaults = {"nms_thresh": 0.7, "pre_nms_topk": 1500, "post_nms_topk": 400, "min_box_size": 0.0}
    options = defaults | options
    ours = find_top_proposals(anchors, logits, deltas, SIZES, TRANSFORM, **options)
    decoded = [
        torch.stack([TRANSFORM.apply_deltas(of_picture, level.tensor) for of_picture in of_level])
        for level, of_level in zip(anchors, deltas, strict=True)
    ]
    theirs = find_top_rpn_proposals(decoded, logits, SIZES, training=False, **options)
    return ours, theirs


@pytest.mark.parametrize(
    "options", [{}, {"nms_thresh": 0.3}, {"min_box_size": 9.0}, {"post_nms_topk": 5000}]
)
def test_they_are_detectron2s(options):
    ours, theirs = find(*predictions(0), **options)
    for a, b, size in zip(ours, theirs, SIZES, strict=True):
        assert len(a) > 100 and a.image_size == size
        assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
        assert torch.equal(a.objectness_logits, b.objectness_logits)


def test_what_is_not_finite_or_outside_of_the_picture_is_none():
    anchors, logits, deltas = predictions(1)
    logits[0][0, :50] = torch.inf
    logits[1][1, 3] = torch.nan
    deltas[0][1, :20, 2] = torch.nan
    anchors[1].tensor[:30] += 500
    ours, theirs = find(anchors, logits, deltas)
    for a, b in zip(ours, theirs, strict=True):
        assert a.objectness_logits.isfinite().all()
        assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
    for x in (*logits, *deltas):
        x.fill_(torch.nan)
    assert [len(x) for x in find(anchors, logits, deltas)[0]] == [0, 0]


def test_of_equally_certain_ones_the_first_come_first():
    anchors, logits, deltas = predictions(2)
    for x in logits:
        x.zero_()
    found, _ = find(anchors, logits, deltas, nms_thresh=1.0, min_box_size=-1e9)
    expected = TRANSFORM.apply_deltas(deltas[0][0, :400], anchors[0].tensor[:400])
    expected = Boxes(expected)
    expected.clip(SIZES[0])
    assert torch.equal(found[0].proposal_boxes.tensor, expected.tensor)
