"""Box deltas clamped on one side or on both."""

import math

import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from project.box_regression import TwoSidedBox2BoxTransform

WEIGHTS = (10.0, 10.0, 5.0, 4.0)
BOXES = torch.tensor([[10.0, 20.0, 110.0, 70.0]])


def size(boxes: torch.Tensor) -> list[float]:
    return (boxes[0, 2:] - boxes[0, :2]).tolist()


def test_boxes_cannot_shrink_below_16_thousandths():
    deltas = torch.tensor([[0.0, 0.0, -100.0, -100.0]])
    before = deltas.clone()
    shrunk = TwoSidedBox2BoxTransform(WEIGHTS).apply_deltas(deltas, BOXES)
    assert torch.allclose(torch.tensor(size(shrunk)), torch.tensor([1.6, 0.8]), rtol=1e-4)
    assert torch.equal(deltas, before)
    assert max(size(Box2BoxTransform(WEIGHTS).apply_deltas(deltas, BOXES))) < 1e-3


def test_inside_the_clamp_both_are_the_same():
    random = torch.Generator().manual_seed(0)
    deltas = torch.randn(50, 8, generator=random) * 4
    boxes = torch.rand(50, 4, generator=random).cumsum(dim=1) * 50
    limit = math.log(1000 / 16)
    deltas[:, 2::4] = deltas[:, 2::4].clamp(min=-5 * limit)
    deltas[:, 3::4] = deltas[:, 3::4].clamp(min=-4 * limit)
    ours, theirs = (
        kind(WEIGHTS).apply_deltas(deltas, boxes)
        for kind in (TwoSidedBox2BoxTransform, Box2BoxTransform)
    )
    assert torch.equal(ours, theirs)
