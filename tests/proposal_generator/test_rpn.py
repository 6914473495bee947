"""The RPN's rules: Detectron2's by default, mmdetection's where the config says so."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.autograd.profiler import profile

from project.engine import Trainer
from project.errors import UserError
from project.proposal_generator.matcher import AnchorMatcher
from tests.helpers import load_small_config

THRESHOLDS, LABELS = [0.3, 0.7], [0, -1, 1]


def matcher(min_iou: float = 0.0, reassign: bool = False) -> AnchorMatcher:
    return AnchorMatcher(THRESHOLDS, LABELS, min_iou=min_iou, reassign=reassign)


@pytest.mark.parametrize("shape", [(1, 1), (4, 50), (3, 0), (0, 7)])
def test_without_rules_it_is_detectron2s_matcher(shape):
    iou = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = Matcher(THRESHOLDS, LABELS, allow_low_quality_matches=True)(iou)
    for ours, theirs in zip(matcher()(iou), expected, strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_an_objects_best_anchors_must_overlap_it_enough():
    iou = torch.tensor([[0.1, 0.2, 0.2], [0.5, 0.0, 0.1]])
    assert matcher()(iou)[1].tolist() == [1, 1, 1]
    # The best of object 0 have an IoU of .2 only; the best of object 1 has .5.
    assert matcher(min_iou=0.3)(iou)[1].tolist() == [1, 0, 0]


def test_a_low_quality_match_belongs_to_the_object_that_it_is_best_for():
    # Anchor 0 is the best one of both objects, and overlaps object 0 more.
    iou = torch.tensor([[0.6, 0.1], [0.4, 0.0]])
    assert matcher()(iou)[0].tolist() == [0, 0]
    matches, labels = matcher(reassign=True)(iou)
    assert matches.tolist() == [1, 0] and labels.tolist() == [1, 0]
    # Even where another object is matched well.
    iou = torch.tensor([[0.9, 0.8], [0.4, 0.1]])
    assert matcher(reassign=True)(iou)[0].tolist() == [1, 0]


@pytest.mark.parametrize("min_iou", [0.0, 0.3])
def test_of_several_objects_the_last_one_has_the_anchor(min_iou):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        # Of few values, so that many are equal.
        iou = torch.randint(0, 5, (300, 40), generator=generator) / 5
        best = (iou == iou.max(dim=1, keepdim=True).values) & (iou >= min_iou)
        numbers = torch.arange(1, 301)
        last = (best * numbers[:, None]).max(dim=0).values
        expected = torch.where(last > 0, last - 1, iou.max(dim=0).indices)
        matches, _ = matcher(min_iou, reassign=True)(iou)
        assert torch.equal(matches, expected) and matches.dtype == torch.int64


def test_finding_the_last_object_takes_few_bytes_for_each_pair():
    iou = torch.rand((50, 4000), generator=torch.Generator().manual_seed(0))
    with profile(profile_memory=True) as profiler:
        matcher(reassign=True)(iou)
    largest = max(event.self_cpu_memory_usage for event in profiler.function_events)
    assert 0 < largest < 2 * iou.numel()


def models(small_opts, *opts: str):
    """Detectron2's RPN and ours with the same weights, and a batch."""
    pair = []
    for name in ("RPN", "ExtendedRPN"):
        cfg = load_small_config([*small_opts, "MODEL.PROPOSAL_GENERATOR.NAME", name, *opts])
        torch.manual_seed(0)
        pair.append(build_model(cfg).train())
    return *pair, next(iter(Trainer.build_train_loader(cfg)))


def rpn_outputs(model, batch, training: bool):
    model.train(training)
    with EventStorage():
        images = model.preprocess_image(batch)
        targets = [x["instances"] for x in batch]
        features = model.backbone(images.tensor)
        torch.manual_seed(1)  # the sampler draws from it
        return model.proposal_generator(images, features, targets if training else None)


@pytest.mark.parametrize("training", [True, False])
def test_with_the_default_config_it_computes_what_detectron2s_does(small_opts, training):
    stock, ours, batch = models(small_opts)
    expected, expected_losses = rpn_outputs(stock, batch, training)
    proposals, losses = rpn_outputs(ours, batch, training)
    assert {k: v.item() for k, v in losses.items()} == {
        k: v.item() for k, v in expected_losses.items()
    }
    for a, b in zip(proposals, expected, strict=True):
        assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)


def one_object(box: list[float], size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor([box]))
    return instances


def test_anchors_that_leave_the_picture_are_left_out_before_matching(small_opts):
    opts = ("MODEL.RPN.BOUNDARY_THRESH", "0", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "1000")
    stock, ours, _ = models(small_opts, *opts)
    # The best anchor of the object leaves the picture; another overlaps it less.
    anchors = [Boxes(torch.tensor([[-2.0, 0, 18, 20], [4, 0, 24, 20], [60, 60, 80, 80]]))]
    target = one_object([0, 0, 20, 20], (100, 100))
    (labels,), _ = stock.proposal_generator.label_and_sample_anchors(anchors, [target])
    assert labels.tolist() == [-1, -1, 0]
    (labels,), (boxes,) = ours.proposal_generator.label_and_sample_anchors(anchors, [target])
    assert labels.tolist() == [-1, 1, 0]
    assert boxes[1].tolist() == [0, 0, 20, 20]


def test_a_picture_that_no_anchor_fits_into_has_none_that_count(small_opts):
    _, ours, _ = models(small_opts, "MODEL.RPN.BOUNDARY_THRESH", "0")
    anchors = [Boxes(torch.tensor([[-2.0, 0, 18, 20]]))]
    target = one_object([0, 0, 8, 8], (10, 10))
    (labels,), _ = ours.proposal_generator.label_and_sample_anchors(anchors, [target])
    assert labels.tolist() == [-1]


def test_losses_are_divided_by_what_was_sampled(small_opts):
    _, fixed, batch = models(small_opts)
    _, sampled, _ = models(small_opts, "MODEL.RPN.LOSS_NORMALIZER", "sampled")
    asked_for = fixed.proposal_generator.batch_size_per_image * len(batch)
    with EventStorage() as storage:
        for model in (fixed, sampled):
            model.proposal_generator.batch_size_per_image = 10**6  # more than there are
        images = fixed.preprocess_image(batch)
        features = fixed.backbone(images.tensor)
        targets = [x["instances"] for x in batch]
        rpn = sampled.proposal_generator
        anchors = rpn.anchor_generator([features[f] for f in rpn.in_features])
        labels, _ = rpn.label_and_sample_anchors(anchors, targets)
        number = sum(int((x >= 0).sum()) for x in labels)
        _, a = fixed.proposal_generator(images, features, targets)
        _, b = sampled.proposal_generator(images, features, targets)
        assert storage.latest() and number > asked_for
    for name in a:
        assert b[name].item() == pytest.approx(a[name].item() * 10**6 * len(batch) / number)


def test_an_unknown_choice_is_one_line(small_opts):
    with pytest.raises(UserError, match="choose one of batch_size, sampled"):
        models(small_opts, "MODEL.RPN.LOSS_NORMALIZER", "mean")
