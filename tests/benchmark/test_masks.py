"""The benchmark of masks runs, and would see other masks."""

import pytest

from project.benchmark import masks
from project.errors import UserError
from project.structures.pasted_masks import PastedMasks
from scripts import benchmark


def test_it_runs(capsys):
    benchmark.main(["masks", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in masks.BOX_SIZES)


def test_masks_that_differ_are_found_out(monkeypatch):
    monkeypatch.setattr(
        masks, "PastedMasks", lambda *arguments: PastedMasks(*arguments, threshold=0.51)
    )
    with pytest.raises(UserError, match="of the pixels differ"):
        masks.benchmark_masks(1)


def test_the_boxes_have_the_sizes_asked_for():
    logits, boxes = masks.seeded_masks((0.05, 0.6))
    height, width = masks.IMAGE_HW
    assert logits.shape == (100, 28, 28)
    shares = (boxes[:, 2:] - boxes[:, :2]) / boxes.new_tensor([width, height])
    assert shares.min() >= 0.049 and 0.5 < shares.max() <= 0.601
    assert boxes.min() >= 0 and (boxes[:, 2:] <= boxes.new_tensor([width, height]) + 1e-3).all()
