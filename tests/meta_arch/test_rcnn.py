"""The detector is Detectron2's, but for masks that are pasted late."""

import copy

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.layers import ROIAlign, paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from torch.fx.experimental.proxy_tensor import make_fx

from project.data.mapper import build_mapper
from project.errors import UserError
from project.layers.cuda_graphs import GraphedCalls
from project.layers.roi_align import FastROIAlign
from project.structures.pasted_masks import PastedMasks
from tests.helpers import load_small_config

FROM_ZERO = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.INFERENCE_DTYPE", "float32"]


class ReplayedCalls(GraphedCalls):
    """CUDA graphs on a CPU: operations are recorded once for each size, then replayed."""

    def __init__(self):
        super().__init__()
        self.recorded = {}
        self.num_replays = 0

    def applies_to(self, x):
        return True

    def __call__(self, function, modules, *inputs):
        assert not any(module.training for module in modules)
        name = getattr(function, "__name__", type(function).__name__)
        key = name, tuple((x.shape, x.dtype) for x in inputs)
        if key in self.recorded:
            self.num_replays += 1
        else:
            self.recorded[key] = make_fx(lambda *x: function(*x))(*inputs)
        return self.recorded[key](*inputs)


@pytest.fixture
def model_and_pictures(small_opts):
    cfg = load_small_config([*small_opts, *FROM_ZERO])
    torch.manual_seed(0)
    mapper = build_mapper(cfg, is_train=False)
    records = DatasetCatalog.get("tiny_voc_test_annotated")[:2]
    return build_model(cfg).eval(), [mapper(record) for record in records]


@torch.no_grad()
def test_detections_are_detectron2s(model_and_pictures):
    model, pictures = model_and_pictures
    del pictures[1]["height"], pictures[1]["width"]  # then those of the network's input
    expected = GeneralizedRCNN.inference(model, pictures)
    for ours, theirs, picture in zip(model(pictures), expected, pictures, strict=True):
        ours, theirs = ours["instances"], theirs["instances"]
        size = tuple(picture["image"].shape[1:])
        assert ours.image_size == (picture.get("height", size[0]), picture.get("width", size[1]))
        assert len(ours) == len(theirs) > 10
        for name in ("pred_boxes", "scores", "pred_classes"):
            mine, other = (getattr(x.get(name), "tensor", x.get(name)) for x in (ours, theirs))
            assert torch.equal(mine, other)
        assert isinstance(ours.pred_masks, PastedMasks)
        differing = (ours.pred_masks.tensor != theirs.pred_masks).float().mean()
        assert differing < 1e-5
        assert set(ours.get_fields()) == set(theirs.get_fields())


@torch.no_grad()
@pytest.mark.parametrize("threshold", [0.3, 0.49])
def test_masks_are_what_is_probable_enough(model_and_pictures, small_opts, threshold):
    model, pictures = model_and_pictures
    opts = [*FROM_ZERO, "MODEL.ROI_MASK_HEAD.THRESH_TEST", str(threshold)]
    other = build_model(load_small_config([*small_opts, *opts])).eval()
    other.load_state_dict(model.state_dict())
    raw = GeneralizedRCNN.inference(model, pictures, do_postprocess=False)
    for found, instances, picture in zip(other(pictures), raw, pictures, strict=True):
        found, size = found["instances"], (picture["height"], picture["width"])
        masks = instances.pred_masks[:, 0]
        expected = paste_masks_in_image(masks, found.pred_boxes, size, threshold=threshold)
        assert (found.pred_masks.tensor != expected).float().mean() < 1e-5
        assert expected.sum() > paste_masks_in_image(masks, found.pred_boxes, size).sum()


@pytest.mark.parametrize("threshold", ["0.0", "1.0", "50.0"])
def test_a_threshold_of_masks_is_a_probability(small_opts, threshold):
    opts = [*small_opts, "MODEL.ROI_MASK_HEAD.THRESH_TEST", threshold]
    with pytest.raises(UserError, match="choose a probability between 0 and 1"):
        build_model(load_small_config(opts))


@torch.no_grad()
def test_raw_outputs_are_detectron2s(model_and_pictures):
    model, pictures = model_and_pictures
    ours = model.inference(copy.deepcopy(pictures), do_postprocess=False)
    theirs = GeneralizedRCNN.inference(model, pictures, do_postprocess=False)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.pred_masks, other.pred_masks) and mine.pred_masks.ndim == 4


@torch.no_grad()
@pytest.mark.parametrize("num_mask_heads", ["1", "3"])
@pytest.mark.parametrize("agnostic", ["False", "True"])
def test_what_is_replayed_is_what_is_computed(small_opts, monkeypatch, num_mask_heads, agnostic):
    """For pictures of other sizes that are padded alike, with other numbers of objects."""
    # On a GPU RoIAlign is Detectron2's; the other one is no fixed sequence of operations.
    monkeypatch.setattr(FastROIAlign, "forward", ROIAlign.forward)
    opts = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.1", "MODEL.INFERENCE_DTYPE", "float32"]
    opts += ["MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION", "logits", "MODEL.DELTA_CLAMP", "both"]
    opts += ["MODEL.ROI_MASK_HEAD.NUM_HEADS", num_mask_heads]
    opts += ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", agnostic, "MODEL.CUDA_GRAPHS", "True"]
    torch.manual_seed(0)
    model = build_model(load_small_config([*small_opts, *opts])).eval()
    heads = model.roi_heads
    for head in heads.mask_head if num_mask_heads == "3" else [heads.mask_head]:
        torch.nn.init.normal_(head.predictor.weight, std=1.0)  # no two masks are alike
    sizes = [(96, 128), (70, 100)], [(65, 97), (96, 120)], [(90, 128), (96, 97)]
    batches = [
        [{"image": torch.randint(256, (3, *size), dtype=torch.uint8)} for size in batch]
        for batch in sizes
    ]
    plain = [model(batch) for batch in batches]
    calls = ReplayedCalls()
    for part in (model, model.proposal_generator, heads):
        assert isinstance(part.graphed, GraphedCalls)
        part.graphed = calls
    numbers = set()
    for batch, expected in zip(batches, plain, strict=True):
        for ours, theirs in zip(model(batch), expected, strict=True):
            ours, theirs = ours["instances"], theirs["instances"]
            numbers.add(len(ours))
            assert torch.equal(ours.pred_classes, theirs.pred_classes)
            assert torch.allclose(ours.scores, theirs.scores, atol=1e-6)
            boxes = ours.pred_boxes.tensor, theirs.pred_boxes.tensor
            assert torch.allclose(*boxes, atol=1e-3)
            masks = ours.pred_masks.probabilities, theirs.pred_masks.probabilities
            assert torch.allclose(*masks, atol=1e-4)
    assert len(numbers) > 2 and 0 < max(numbers) < 100
    assert len(calls.recorded) == 4 and calls.num_replays == 8
    operations = {str(x.target) for graph in calls.recorded.values() for x in graph.graph.nodes}
    assert not [x for x in operations if "local_scalar" in x or "nonzero" in x or "lift_fresh" in x]


@torch.no_grad()
def test_a_mask_head_of_ones_own_gets_the_detections(model_and_pictures):
    model, pictures = model_and_pictures
    head = model.roi_heads.mask_head

    class ScoredMasks(type(head)):
        def forward(self, x, instances):
            for of_picture in super().forward(x, instances):
                of_picture.mask_scores = of_picture.scores * 2
            return instances

    head.__class__ = ScoredMasks
    for graphed in (None, ReplayedCalls()):
        model.roi_heads.graphed = graphed
        found = model(pictures)[0]["instances"]
        assert torch.equal(found.mask_scores, found.scores * 2) and found.has("pred_masks")


@torch.no_grad()
def test_a_model_without_masks(small_opts, model_and_pictures):
    _, pictures = model_and_pictures
    model = build_model(load_small_config([*small_opts, "MODEL.MASK_ON", "False"])).eval()
    assert not model(pictures)[0]["instances"].has("pred_masks")


@torch.no_grad()
def test_half_precision_finds_nearly_the_same(model_and_pictures):
    model, pictures = model_and_pictures
    model.inference_dtype = "float32"
    expected = model(pictures)
    model.inference_dtype = "bfloat16"
    for ours, theirs in zip(model(pictures), expected, strict=True):
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.scores.dtype == ours.pred_boxes.tensor.dtype == torch.float32
        assert torch.allclose(ours.scores[:10], theirs.scores[:10], atol=0.02)
        assert not torch.equal(ours.scores, theirs.scores)


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_machine_computes_with(model_and_pictures, monkeypatch, has_it, expected):
    model, pictures = model_and_pictures
    results = []
    monkeypatch.setattr("project.precision.computes_in_bfloat16", lambda device: has_it)
    for dtype in ("auto", expected):
        model.inference_dtype = dtype
        with torch.no_grad():
            results.append(model(pictures)[0]["instances"].scores)
    assert torch.equal(*results)


def test_the_cpu_keeps_channels_last(small_opts, model_and_pictures):
    model, pictures = model_and_pictures
    weight = model.backbone.fpn_output2.weight
    assert model.channels_last and weight.is_contiguous(memory_format=torch.channels_last)
    batch = model.preprocess_image(pictures).tensor
    assert batch.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        features = model.backbone(batch)["p2"]
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_dtype_is_refused(small_opts):
    with pytest.raises(UserError, match="choose one of auto, float32"):
        build_model(load_small_config([*small_opts, "MODEL.INFERENCE_DTYPE", "int8"]))
