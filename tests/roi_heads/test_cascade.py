"""The cascade's heads: Detectron2's by default, mmdetection's where the config says so."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from project.engine import Trainer
from project.errors import UserError
from project.layers.roi_align import use_fast_roi_align
from tests.helpers import load_small_config

CASCADE = "MODEL.ROI_BOX_CASCADE_HEAD"
ORIGINAL = (
    *("MODEL.ROI_MASK_HEAD.NUM_HEADS", "3", f"{CASCADE}.RESAMPLE", "True"),
    *(f"{CASCADE}.SCORE_FUSION", "logits", f"{CASCADE}.AVERAGE_GRADIENT", "False"),
    *(f"{CASCADE}.STAGE_LOSS_WEIGHTS", "[1.0, 0.5, 0.25]", "MODEL.DELTA_CLAMP", "both"),
)


def build(small_opts, *opts: str):
    """A model with weights that depend on the seed only, and its config."""
    fixed = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.INFERENCE_DTYPE", "float32"]
    cfg = load_small_config([*small_opts, *fixed, *opts])
    torch.manual_seed(0)
    return build_model(cfg), cfg


def build_stock(small_opts):
    """Detectron2's heads; with the same RoIAlign, so that nothing else can differ by a bit."""
    model, _ = build(small_opts, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads")
    for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
        use_fast_roi_align(pooler)
    return model


def step(model, batch, seed: int = 1) -> dict[str, torch.Tensor]:
    model.train()
    torch.manual_seed(seed)  # the samplers draw from it
    with EventStorage():
        return model(batch)


@pytest.fixture
def batch(small_opts):
    return next(iter(Trainer.build_train_loader(load_small_config(small_opts))))


def test_with_the_default_config_it_trains_as_detectron2s_does(small_opts, batch):
    stock = build_stock(small_opts)
    ours, _ = build(small_opts)
    expected, losses = step(stock, batch), step(ours, batch)
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in expected.items()}
    for model_losses in (expected, losses):
        sum(model_losses.values()).backward()
    for (name, a), b in zip(ours.named_parameters(), stock.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad), name


@torch.no_grad()
def test_with_the_default_config_it_predicts_as_detectron2s_does(small_opts, batch):
    stock = build_stock(small_opts)
    ours, _ = build(small_opts)
    for a, b in zip(ours.eval()(batch), stock.eval()(batch), strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_masks.tensor, b.pred_masks.tensor)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


def test_the_stages_losses_are_weighted(small_opts, batch):
    equal, _ = build(small_opts, "MODEL.ROI_MASK_HEAD.NUM_HEADS", "3")
    weighted, _ = build(
        small_opts,
        *("MODEL.ROI_MASK_HEAD.NUM_HEADS", "3"),
        *(f"{CASCADE}.STAGE_LOSS_WEIGHTS", "[1.0, 0.5, 0.25]"),
    )
    a, b = step(equal, batch), step(weighted, batch)
    assert {n.rsplit("_stage")[0] for n in a} >= {"loss_cls", "loss_box_reg", "loss_mask"}
    for name, loss in a.items():
        weight = 0.5 ** int(name[-1]) if "stage" in name else 1.0
        assert b[name].item() == pytest.approx(loss.item() * weight, rel=1e-6), name


def test_without_averaging_the_features_gradients_are_three_times_as_large(small_opts, batch):
    norms = []
    for average in ("True", "False"):
        model, _ = build(small_opts, f"{CASCADE}.AVERAGE_GRADIENT", average)
        losses = step(model, batch)
        sum(v for k, v in losses.items() if "loss_cls_stage" in k).backward()
        norms.append(model.backbone.fpn_lateral3.weight.grad.norm().item())
    assert norms[1] == pytest.approx(3 * norms[0], rel=1e-4)


def target(boxes: list[list[float]], classes: list[int]) -> Instances:
    instances = Instances((100, 100))
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = BitMasks(torch.ones(len(boxes), 100, 100, dtype=torch.bool))
    return instances


def proposals(boxes: list[list[float]]) -> Instances:
    return Instances((100, 100), proposal_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))


def label(heads, boxes, objects, stage: int) -> Instances:
    heads.train()
    with EventStorage():
        return heads._label_proposals([proposals(boxes)], [objects], stage)[0]


def test_every_stage_samples_anew_at_its_own_iou(small_opts):
    heads = build(small_opts, *ORIGINAL)[0].roi_heads
    objects = target([[10, 10, 50, 50]], [4])
    # IoU with the object: .82, .67 and 0.
    boxes = [[10.0, 10, 50, 43], [10, 10, 50, 37], [60, 60, 90, 90]]
    for stage, positives in enumerate((3, 3, 2)):  # the object's own box among them
        rois = label(heads, boxes, objects, stage)
        assert len(rois) == 4 and int(rois.is_ground_truth.sum()) == 1
        assert int((rois.gt_classes == 4).sum()) == positives
        assert int((rois.gt_classes == heads.num_classes).sum()) == 4 - positives


@pytest.mark.parametrize("opts", [(), ORIGINAL])
def test_positives_that_were_proposed_are_counted_apart(small_opts, opts):
    heads = build(small_opts, *opts)[0].roi_heads.train()
    objects = target([[10, 10, 50, 50], [60, 60, 90, 90]], [4, 7])
    near, far = [10.0, 10, 50, 43], [80.0, 5, 95, 30]
    for boxes, proposed in (([near, far], 1), ([far, far], 0)):
        with EventStorage() as storage:
            heads._label_proposals(
                [proposals(boxes), proposals([far])], [objects, target([], [])], 0
            )
        # Of two pictures, the second without objects.
        means = {name: value for name, (value, _) in storage.latest().items()}
        assert means["roi_head/num_fg_samples"] == (2 + proposed) / 2
        assert means["roi_head/num_bg_samples"] == (3 - proposed) / 2
        assert means["roi_head/num_fg_proposals"] == proposed / 2


def test_two_objects_with_one_box_keep_their_own_classes(small_opts):
    heads = build(small_opts, *ORIGINAL)[0].roi_heads
    rois = label(heads, [], target([[10, 10, 50, 50], [10, 10, 50, 50]], [4, 7]), 0)
    assert sorted(rois.gt_classes.tolist()) == [4, 7]


def test_a_picture_without_objects_has_background_only(small_opts):
    heads = build(small_opts, *ORIGINAL)[0].roi_heads
    for stage in range(3):
        rois = label(heads, [[1.0, 1, 9, 9]], target([], []), stage)
        assert rois.gt_classes.tolist() == [heads.num_classes]
        assert not rois.has("gt_boxes") and not rois.has("gt_masks")


@pytest.mark.parametrize("first_without", [0, 1])
@pytest.mark.parametrize("opts", [(), ORIGINAL])
def test_pictures_without_objects_train(small_opts, batch, opts, first_without):
    model, _ = build(small_opts, *opts)
    for record in batch[first_without:]:
        record["instances"] = record["instances"][:0]
    losses = step(model, batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("first_without", [0, 1])
def test_statistics_of_masks_are_those_of_objects(small_opts, batch, first_without):
    model, _ = build(small_opts)
    norms = [m for m in model.roi_heads.mask_head.modules() if hasattr(m, "running_mean")]
    assert norms
    for record in batch[first_without:]:
        record["instances"] = record["instances"][:0]
    step(model, batch)
    learn = first_without > 0
    assert all(bool(norm.running_mean.any()) == learn for norm in norms)
    assert all(norm.momentum == 0.1 for norm in norms)


def test_only_refined_proposals_go_on_to_the_next_stage(small_opts):
    model, _ = build(small_opts, *ORIGINAL)
    heads = model.roi_heads.train()
    rois = label(heads, [[10.0, 10, 50, 43], [60, 60, 90, 90]], target([[10, 10, 50, 50]], [4]), 0)
    # Deltas that move the boxes out of the picture: the clipped ones are empty, and stay.
    deltas = torch.tensor([[1e3, 0, 0, 0]]).expand(len(rois), 4)
    (after,) = heads._refine((torch.zeros(len(rois), 21), deltas), [rois], 0)
    assert len(after) == 2 and not after.proposal_boxes.nonempty().any()
    heads.resample = False
    (after,) = heads._refine((torch.zeros(len(rois), 21), deltas), [rois], 0)
    assert len(after) == 0


@torch.no_grad()
def test_scores_are_the_softmax_of_mean_logits_or_the_mean_of_softmaxes(small_opts, batch):
    found = {}
    for fusion in ("logits", "probs"):
        model, _ = build(small_opts, f"{CASCADE}.SCORE_FUSION", fusion)
        heads = model.roi_heads.eval()
        logits = [
            10 * torch.randn(1, 21, generator=torch.Generator().manual_seed(s)) for s in (1, 2, 3)
        ]
        heads._run_stage = lambda f, p, stage, *_, logits=logits: (logits[stage], torch.zeros(1, 4))
        features = dict.fromkeys(heads.box_in_features)
        (detections,) = heads._forward_box(features, [proposals([[10.0, 10, 50, 50]])])
        found[fusion] = detections.scores.sort(descending=True).values
    stacked = torch.stack(logits)[:, 0]
    expected = {
        "logits": stacked.mean(dim=0).softmax(dim=0),
        "probs": stacked.softmax(dim=1).mean(dim=0),
    }
    for fusion, scores in expected.items():
        # A score of exactly 0 is not above the threshold.
        foreground = scores[:-1].sort(descending=True).values
        assert torch.allclose(found[fusion], foreground[: len(found[fusion])], atol=1e-6)
    assert not torch.allclose(expected["logits"], expected["probs"], atol=0.05)


@torch.no_grad()
def test_the_three_heads_mask_probabilities_are_averaged(small_opts, batch):
    model, _ = build(small_opts, *ORIGINAL)
    model.eval()
    heads = model.roi_heads
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    boxes = Boxes(torch.tensor([[5.0, 5, 60, 60], [20, 10, 50, 90]]))
    given = [
        Instances((96, 96), pred_boxes=boxes, pred_classes=torch.tensor([3, 0])) for _ in batch
    ]
    result = heads.forward_with_given_boxes(features, given)
    pooled = heads.mask_pooler([features[f] for f in heads.mask_in_features], [boxes] * len(batch))
    expected = sum(head.layers(pooled).sigmoid() for head in heads.mask_head) / 3
    assert torch.allclose(torch.cat([x.pred_masks for x in result]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (f"{CASCADE}.SCORE_FUSION", "max", "choose one of probs, logits"),
        (f"{CASCADE}.STAGE_LOSS_WEIGHTS", "[1.0]", "1 weights for 3 stages"),
        ("MODEL.ROI_MASK_HEAD.NUM_HEADS", "2", "choose one of 1, 3"),
        ("MODEL.DELTA_CLAMP", "lower", "choose one of upper, both"),
    ],
)
def test_an_unknown_choice_is_one_line(small_opts, key, value, message):
    with pytest.raises(UserError, match=message):
        build(small_opts, key, value)
