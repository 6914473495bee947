"""Training optimises what mmdetection optimised: targets, samples, losses and gradients."""

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.structures.masks import polygons_to_bitmask
from detectron2.utils.events import EventStorage

from project.roi_heads.matched_masks import MatchedMasks
from tests.parity.reference import PICTURES, STAGES, Reference, training_targets

LOSS_NAMES = {
    "loss_rpn_cls": "loss_rpn_cls",
    "loss_rpn_bbox": "loss_rpn_loc",
    **{
        f"s{stage}.{theirs}": f"{ours}_stage{stage}"
        for stage in STAGES
        for theirs, ours in (
            ("loss_cls", "loss_cls"),
            ("loss_bbox", "loss_box_reg"),
            ("loss_mask", "loss_mask"),
        )
    },
}


@pytest.mark.parametrize("index", PICTURES)
def test_anchors_that_count_and_their_targets(reference, index):
    ours = reference.training
    labels = ours.anchor_labels[index]
    number = len(labels)
    counts = np.unpackbits(reference[f"tr_rpn{index}_label_bits"])[:number].astype(bool)
    assert np.array_equal((labels >= 0).numpy(), counts)
    positive = (labels == 1).nonzero()[:, 0]
    assert np.array_equal(positive.numpy(), reference[f"tr_rpn{index}_pos"])
    transform = reference.model.proposal_generator.box2box_transform
    targets = transform.get_deltas(ours.anchors[positive], ours.anchor_boxes[index][positive])
    assert reference.difference(f"tr_rpn{index}_pos_targets", targets) <= 1e-5


def test_the_rpns_losses_are_divided_by_the_sampled_anchors(reference):
    sampled = sum(int((labels >= 0).sum()) for labels in reference.training.anchor_labels)
    assert sampled == reference["tr_rpn_avg_factor"].item()


def sorted_rows(*columns: np.ndarray) -> np.ndarray:
    """One table, its rows in an order that does not depend on that of sampling."""
    table = np.concatenate([np.asarray(c).reshape(len(c), -1) for c in columns], axis=1)
    # Boxes are the same up to some 1e-5 pixels, which must not change the order.
    return table[np.lexsort(np.round(table, 2).T)]


@pytest.mark.parametrize("index", PICTURES)
@pytest.mark.parametrize("stage", STAGES)
def test_assignment_and_sampling(reference, stage, index):
    """Everything is sampled, so the sets must be equal; their order is drawn at random."""
    prefix = f"tr_s{stage}_"
    of_picture = reference[f"{prefix}rois"][:, 0] == index
    recorded = reference[f"{prefix}rois"][of_picture, 1:]
    num_positive, num_negative = reference[f"{prefix}n_pos_neg"][index].tolist()
    target = reference.training.targets[index]
    # mmdetection puts the objects' own boxes first, then the other positives, then the negatives.
    assert np.array_equal(recorded[: len(target)], target.gt_boxes.tensor.numpy())
    proposals = Instances(target.image_size)
    proposals.proposal_boxes = Boxes(torch.from_numpy(recorded[len(target) :]))
    with EventStorage():
        (rois,) = reference.model.roi_heads._label_proposals([proposals], [target], stage)

    owners = reference[f"{prefix}pos_gt"][_positives_of(reference, prefix, index)]
    expected = {
        (*box, label, owner)
        for box, label, owner in zip(
            recorded.tolist(),
            reference[f"{prefix}labels"][of_picture].tolist(),
            [*owners.tolist(), *[-1] * num_negative],
            strict=True,
        )
    }
    background = reference.model.roi_heads.num_classes
    ours = {
        (*box, label, -1 if label == background else owner)
        for box, label, owner in zip(
            rois.proposal_boxes.tensor.tolist(),
            rois.gt_classes.tolist(),
            rois.gt_masks.indices.tolist(),
            strict=True,
        )
    }
    assert ours == expected
    assert len(rois) == num_positive + num_negative


def _positives_of(reference: Reference, prefix: str, index: int) -> slice:
    """Where a picture's positives are among all of them."""
    numbers = reference[f"{prefix}n_pos_neg"][:, 0]
    start = int(numbers[:index].sum())
    return slice(start, start + int(numbers[index]))


def test_each_stage_samples_from_the_refined_boxes_of_the_one_before(reference):
    heads = reference.model.roi_heads
    rois, predictions = reference.training.rois, reference.training.predictions
    for stage in STAGES[1:]:
        heads.train()
        refined = heads._refine(predictions[stage - 1], rois[stage - 1], stage - 1)
        heads.eval()
        for before, after in zip(refined, rois[stage], strict=True):
            kept = after.proposal_boxes.tensor[~after.is_ground_truth]
            assert {*map(tuple, kept.tolist())} == {
                *map(tuple, before.proposal_boxes.tensor.tolist())
            }


@pytest.mark.parametrize("stage", STAGES)
def test_box_targets_of_the_recorded_boxes(reference, stage):
    prefix = f"tr_s{stage}_"
    positive = reference[f"{prefix}bbox_weights"][:, 0] > 0
    rois = torch.from_numpy(reference[f"{prefix}rois"][positive])
    owners = torch.from_numpy(reference[f"{prefix}pos_gt"]).long()
    objects = torch.stack(
        [
            reference.training.targets[int(roi[0])].gt_boxes.tensor[owner]
            for roi, owner in zip(rois, owners, strict=True)
        ]
    )
    transform = reference.model.roi_heads.box_predictor[stage].box2box_transform
    targets = transform.get_deltas(rois[:, 1:], objects).numpy()
    assert np.abs(targets - reference[f"{prefix}bbox_targets"][positive]).max() <= 1e-5


@pytest.mark.parametrize("kind", ["polygon", "bitmask"])
@pytest.mark.parametrize("stage", STAGES)
def test_mask_targets(reference, stage, kind):
    prefix = f"tr_s{stage}_"
    rois = torch.from_numpy(reference[f"{prefix}mask_rois"])
    owners = torch.from_numpy(reference[f"{prefix}pos_gt"]).long()
    height, width = reference["tr_shape"].tolist()
    ours = []
    for index in PICTURES:
        masks = training_targets(reference, index).gt_masks
        if kind == "bitmask":
            bitmaps = [polygons_to_bitmask(p, height, width) for p in masks.polygons]
            masks = BitMasks(torch.from_numpy(np.stack(bitmaps)))
        of_picture = rois[:, 0] == index
        matched = MatchedMasks(masks, owners[of_picture])
        ours.append(matched.crop_and_resize(rois[of_picture, 1:], 28))
    suffix = "mask_targets" if kind == "polygon" else "mask_targets_bitmap"
    same = torch.cat(ours).numpy() == reference[prefix + suffix].astype(bool)
    assert same.mean() >= 0.999


@pytest.mark.parametrize("stage", STAGES)
def test_each_loss_on_the_recorded_inputs(reference, stage):
    prefix = f"tr_s{stage}_"
    heads = reference.model.roi_heads
    recorded = reference[f"{prefix}rois"]
    positive = reference[f"{prefix}bbox_weights"][:, 0] > 0
    rois = []
    for index in PICTURES:
        of_picture = recorded[:, 0] == index
        instances = Instances(reference.sizes(index)[2:4])
        boxes = torch.from_numpy(recorded[of_picture, 1:])
        instances.proposal_boxes = Boxes(boxes)
        instances.gt_classes = torch.from_numpy(reference[f"{prefix}labels"][of_picture]).long()
        owners = np.zeros(len(recorded), dtype=int)
        owners[positive] = reference[f"{prefix}pos_gt"]
        instances.gt_boxes = reference.training.targets[index].gt_boxes[owners[of_picture]]
        rois.append(instances)
    predictions = tuple(torch.from_numpy(reference[prefix + key]) for key in ("cls", "reg"))
    with EventStorage():
        losses = heads.box_predictor[stage].losses(predictions, rois)
    expected = reference[f"{prefix}loss"]
    assert float(losses["loss_cls"]) == pytest.approx(float(expected[0]), rel=1e-5)
    assert float(losses["loss_box_reg"]) == pytest.approx(float(expected[1]), rel=1e-5)
    if not reference.has(f"{prefix}mask_logits"):
        return
    targets = torch.from_numpy(reference[f"{prefix}mask_targets"]).bool()
    instances = Instances((1, 1), proposal_boxes=Boxes(torch.zeros(len(targets), 4)))
    instances.gt_masks = GivenTargets(targets)
    logits = torch.from_numpy(reference[f"{prefix}mask_logits"])[:, None]
    with EventStorage():
        loss = mask_rcnn_loss(logits, [instances])
    assert float(loss) == pytest.approx(float(expected[2]), rel=1e-5)


class GivenTargets:
    """``gt_masks`` whose targets are known."""

    def __init__(self, targets: torch.Tensor):
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        return self.targets


def test_the_losses_of_a_whole_step(reference):
    ours = reference.training.losses
    assert set(LOSS_NAMES.values()) == set(ours)
    expected = dict(zip(reference["tr_loss_names"], reference["tre_loss_values"], strict=True))
    for theirs, name in LOSS_NAMES.items():
        assert ours[name].item() == pytest.approx(float(expected[theirs]), rel=1e-3), name


def test_the_gradients_of_a_whole_step(reference):
    ours = reference.training.gradient_norms
    names = reference["tr_grad_names"].tolist()
    assert set(names) == set(ours)
    for name, norm in zip(names, reference["tre_grad_norms"], strict=True):
        assert ours[name] == pytest.approx(float(norm), rel=1e-2, abs=1e-6), name
