"""Mask targets without copies of masks: those of Detectron2, and mmdetection's one-pixel rule."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, PolygonMasks

from project.data.segmentation import polygons
from project.data.synthetic import render_scene
from project.roi_heads.matched_masks import MatchedMasks


def scene_masks(kind: str) -> tuple[BitMasks | PolygonMasks, torch.Tensor]:
    """Masks of a generated picture and boxes near them."""
    scene = next(
        scene
        for scene in (render_scene(0, "train", index) for index in range(50))
        if len(scene.masks) > 2 and all(polygons(mask) for mask in scene.masks)
    )
    masks = BitMasks(torch.from_numpy(scene.masks))
    boxes = masks.get_bounding_boxes().tensor
    if kind == "polygon":
        outlines = [polygons(mask) for mask in scene.masks]
        masks = PolygonMasks([[np.array(p, dtype=np.float64) for p in o] for o in outlines])
    return masks, boxes


@pytest.mark.parametrize("kind", ["bitmask", "polygon"])
def test_the_targets_are_detectron2s(kind):
    masks, boxes = scene_masks(kind)
    random = torch.Generator().manual_seed(0)
    indices = torch.randint(len(boxes), (40,), generator=random)
    rois = boxes[indices] + 6 * torch.randn(40, 4, generator=random)
    rois[:, 2:] = torch.maximum(rois[:, 2:], rois[:, :2] + 2)
    matched = MatchedMasks(masks, indices)
    targets = matched.crop_and_resize(rois, 28)
    assert targets.dtype == torch.bool and targets.shape == (40, 28, 28)
    assert torch.equal(targets, masks[indices].crop_and_resize(rois, 28))
    assert 0.1 < targets.float().mean() < 0.9


def test_indexing_moves_indices_only():
    masks, boxes = scene_masks("bitmask")
    matched = MatchedMasks(masks, torch.tensor([2, 0, 1, 1]))
    chosen = matched[torch.tensor([True, False, False, True])]
    assert len(chosen) == 2 and chosen.masks is masks
    expected = masks[torch.tensor([2, 1])].crop_and_resize(boxes[:2], 14)
    assert torch.equal(chosen.crop_and_resize(boxes[:2], 14), expected)


def test_no_rois_are_no_targets():
    masks, boxes = scene_masks("bitmask")
    none = MatchedMasks(masks, torch.zeros(0, dtype=torch.int64))
    assert none.crop_and_resize(boxes[:0], 28).shape == (0, 28, 28)


def test_polygon_targets_of_tiny_boxes_count_as_one_pixel():
    masks = PolygonMasks([[np.array([0, 0, 10, 0, 10, 10, 0, 10], dtype=np.float64)]])
    indices = torch.zeros(1, dtype=torch.int64)
    # As a box of one pixel, half of it is beyond the square.
    thin = torch.tensor([[9.5, 2.0, 9.9, 8.0]])
    targets = MatchedMasks(masks, indices).crop_and_resize(thin, 28)
    assert targets[0, :, :12].all() and not targets[0, :, 16:].any()
    assert masks.crop_and_resize(thin, 28).all()  # Detectron2's rule
