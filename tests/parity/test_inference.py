"""Our model with mmdetection's weights gives mmdetection's features, proposals and detections.

Bounds are in standard deviations of the compared array, or in pixels.
"""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from project.meta_arch.rcnn import postprocess
from tests.parity.reference import PICTURES, STAGES, Reference

FEATURES = 1e-4
HEADS = 1e-3
PIXELS = 0.02


def test_every_tensor_of_the_checkpoint_is_used_and_every_one_of_ours_filled(reference):
    assert reference.report.format == "mmdetection"
    assert len(reference.report.filled) == len(reference.state)
    assert not reference.report.unfilled and not reference.report.left
    assert set(reference.report.filled) == set(reference.model.state_dict())


@pytest.mark.parametrize("index", PICTURES)
def test_features(reference, index):
    ours = reference.inference[index]
    for level in range(2, 6):
        name = f"img{index}_C{level}"
        assert reference.relative_difference(name, ours.body[f"res{level}"][0]) <= FEATURES, name
    for level in range(2, 7):
        name = f"img{index}_P{level}"
        assert reference.relative_difference(name, ours.pyramid[f"p{level}"][0]) <= FEATURES, name


def test_features_in_double_precision_are_no_further_away(reference):
    """What differs is rounding, not the computation."""
    backbone = reference.model.backbone.double()
    try:
        with torch.no_grad():
            pyramid = backbone(reference.network_input(0).double())
    finally:
        backbone.float()
    for level in range(2, 7):
        name = f"img0_P{level}"
        assert reference.relative_difference(name, pyramid[f"p{level}"][0]) <= FEATURES, name


@pytest.mark.parametrize("index", PICTURES)
def test_rpn_maps_and_proposals(reference, index):
    ours = reference.inference[index]
    for level, (logits, deltas) in enumerate(zip(ours.logits, ours.deltas, strict=True)):
        for kind, values in (("cls", logits), ("reg", deltas)):
            name = f"img{index}_rpn_{kind}{level}"
            assert reference.relative_difference(name, values[0]) <= HEADS, name
    boxes = ours.proposals.proposal_boxes.tensor.numpy()
    theirs = reference[f"img{index}_prop_boxes"]
    distances = np.abs(boxes[:, None] - theirs).max(axis=-1)
    # Not row by row: rounding exchanges neighbours whose scores differ by less than 1e-6.
    assert boxes.shape == theirs.shape
    assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) <= PIXELS
    scores = ours.proposals.objectness_logits.sigmoid().numpy()
    assert reference.difference(f"img{index}_prop_scores", scores) <= 1e-4


def on_boxes(reference: Reference, index: int, boxes: torch.Tensor) -> Instances:
    instances = Instances(reference.sizes(index)[2:4])
    instances.proposal_boxes = Boxes(boxes)
    return instances


@pytest.mark.parametrize("index", PICTURES)
@torch.no_grad()
def test_heads_on_fixed_boxes(reference, index):
    prefix = f"img{index}_fixed"
    heads = reference.model.roi_heads
    pyramid = reference.inference[index].pyramid
    features = [pyramid[name] for name in heads.box_in_features]
    fixed = torch.from_numpy(reference[f"{prefix}_boxes"])
    rois = [on_boxes(reference, index, fixed)]
    pooled = heads.box_pooler(features, [Boxes(fixed)])
    step = pooled.shape[1] // reference[f"{prefix}_roi7"].shape[1]
    assert reference.relative_difference(f"{prefix}_roi7", pooled[:, ::step]) <= FEATURES

    number = len(reference[f"{prefix}_mask_s0"])
    pooled_masks = heads.mask_pooler(features, [Boxes(fixed)])
    probabilities = []
    for stage in STAGES:
        predictions = heads._run_stage(features, rois, stage)
        for kind, values in zip(("cls", "reg"), predictions, strict=True):
            name = f"{prefix}_{kind}_s{stage}"
            assert reference.relative_difference(name, values) <= HEADS, name
        (refined,) = heads._refine(predictions, rois, stage)
        decoded = refined.proposal_boxes.tensor
        assert reference.difference(f"{prefix}_dec_s{stage}", decoded) <= PIXELS
        logits = heads.mask_head[stage].layers(pooled_masks)
        name = f"{prefix}_mask_s{stage}"
        assert reference.relative_difference(name, logits[:number, ::5]) <= HEADS, name
        probabilities.append(logits[:number, ::5].sigmoid())
    mean = torch.stack(probabilities).mean(dim=0)
    assert reference.difference(f"{prefix}_mask_prob", mean) <= 1e-3


@pytest.mark.parametrize("index", PICTURES)
@torch.no_grad()
def test_the_cascade_on_the_recorded_proposals(reference, index):
    heads = reference.model.roi_heads
    pyramid = reference.inference[index].pyramid
    features = [pyramid[name] for name in heads.box_in_features]
    boxes = torch.from_numpy(reference[f"img{index}_prop_boxes"])
    rois = [on_boxes(reference, index, boxes)]
    for stage in STAGES:
        predictions = heads._run_stage(features, rois, stage)
        name = f"img{index}_casc_cls_s{stage}"
        assert reference.relative_difference(name, predictions[0]) <= HEADS, name
        rois = heads._refine(predictions, rois, stage)
        boxes = rois[0].proposal_boxes.tensor
        assert reference.difference(f"img{index}_casc_boxes_s{stage}", boxes) <= PIXELS


def recorded_masks(reference: Reference, name: str, height: int, width: int) -> list[dict]:
    """COCO RLEs from the recorded run lengths."""
    ends = reference[f"{name}_mask_ptr"]
    runs = reference[f"{name}_mask_rle"]
    return [
        coco_mask.frPyObjects(
            {"size": [height, width], "counts": runs[a:b].tolist()}, height, width
        )
        for a, b in pairwise(ends)
    ]


def match(ours: Instances, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[int]:
    """For each recorded detection the one of ours that is the same; every one of ours is taken.

    Candidates within 1e-3 of the score cut may be there on one side only.
    """
    free = set(range(len(ours)))
    pairs = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        same = [
            k
            for k in free
            if ours.pred_classes[k] == label
            and abs(float(ours.scores[k]) - score) <= 1e-3
            and np.abs(ours.pred_boxes.tensor[k].numpy() - box).max() <= PIXELS
        ]
        assert same or score < 0.05 + 1e-3, f"not found: class {label}, score {score}, {box}"
        pairs.append(same[0] if same else -1)
        free.discard(pairs[-1])
    assert all(float(ours.scores[k]) < 0.05 + 1e-3 for k in free)
    return pairs


@pytest.mark.parametrize("where", ["resized", "original"])
@pytest.mark.parametrize("index", PICTURES)
def test_final_detections(reference, index, where):
    original_h, original_w, resized_h, resized_w = reference.sizes(index)[:4]
    height, width = (original_h, original_w) if where == "original" else (resized_h, resized_w)
    name = f"img{index}_det" if where == "resized" else f"img{index}_det_ori"
    ours = postprocess(copy.deepcopy(reference.inference[index].detections), height, width)
    scores, labels = (reference[f"img{index}_det_{key}"] for key in ("scores", "labels"))
    pairs = match(ours, reference[f"{name}_boxes"], scores, labels)
    assert len(pairs) >= 20
    theirs = recorded_masks(reference, name, height, width)
    masks = ours.pred_masks.numpy().to_rle()
    overlaps = np.array(
        [
            coco_mask.iou([masks[k]], [rle], [0])[0, 0]
            for k, rle in zip(pairs, theirs, strict=True)
            if k >= 0 and coco_mask.area(rle) + coco_mask.area(masks[k]) > 0
        ]
    )
    assert overlaps.min() >= 0.99 and overlaps.mean() >= 0.999
