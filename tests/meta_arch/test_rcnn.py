"""The detector is Detectron2's, but for masks that are pasted late."""

import copy

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN

from project.data.mapper import build_mapper
from project.errors import UserError
from project.layers.cuda_graphs import GraphedCalls
from project.structures.pasted_masks import PastedMasks
from tests.helpers import load_small_config


class RecordedCalls(GraphedCalls):
    def __init__(self):
        super().__init__()
        self.functions = []

    def __call__(self, function, *inputs):
        self.functions.append(function)
        return super().__call__(function, *inputs)


@pytest.fixture
def model_and_pictures(small_opts):
    opts = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.INFERENCE_DTYPE", "float32"]
    cfg = load_small_config([*small_opts, *opts])
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
def test_raw_outputs_are_detectron2s(model_and_pictures):
    model, pictures = model_and_pictures
    ours = model.inference(copy.deepcopy(pictures), do_postprocess=False)
    theirs = GeneralizedRCNN.inference(model, pictures, do_postprocess=False)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.pred_masks, other.pred_masks) and mine.pred_masks.ndim == 4


@torch.no_grad()
@pytest.mark.parametrize("num_mask_heads", ["1", "3"])
@pytest.mark.parametrize("fusion", ["logits", "probs"])
def test_rois_filled_up_for_cuda_graphs_change_nothing(
    small_opts, model_and_pictures, num_mask_heads, fusion
):
    _, pictures = model_and_pictures
    opts = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "MODEL.INFERENCE_DTYPE", "float32"]
    opts += ["MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION", fusion, "MODEL.DELTA_CLAMP", "both"]
    opts += ["MODEL.ROI_MASK_HEAD.NUM_HEADS", num_mask_heads, "MODEL.RPN.NMS_THRESH", "0.3"]
    plain = build_model(load_small_config(opts := [*small_opts, *opts])).eval()
    filled_up = build_model(load_small_config([*opts, "MODEL.CUDA_GRAPHS", "True"])).eval()
    filled_up.load_state_dict(plain.state_dict())
    graphed = RecordedCalls()
    for part in (filled_up, filled_up.proposal_generator, filled_up.roi_heads):
        assert isinstance(part.graphed, GraphedCalls)
        part.graphed = graphed
    for batch in (pictures, pictures[:1]):
        for ours, expected in zip(filled_up(batch), plain(batch), strict=True):
            ours, expected = ours["instances"], expected["instances"]
            assert len(ours) == len(expected) > 10
            assert torch.allclose(ours.scores, expected.scores, atol=1e-6)
            assert torch.equal(ours.pred_classes, expected.pred_classes)
            boxes = ours.pred_boxes.tensor, expected.pred_boxes.tensor
            assert torch.allclose(*boxes, atol=1e-3)
            masks = ours.pred_masks.probabilities, expected.pred_masks.probabilities
            assert torch.allclose(*masks, atol=1e-5)
    assert len(graphed.functions) == 8 and len(set(graphed.functions)) == 4


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
