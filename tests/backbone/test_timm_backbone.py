"""The registered backbones: shapes, frozen parts, sizes, and what a wrong config says."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from detectron2.utils.events import EventStorage
from torch import nn

from project.backbone.fpn import input_statistics_warnings
from project.backbone.timm_body import TimmBody
from project.config import get_project_cfg, load_config
from project.engine import Trainer
from project.errors import UserError
from tests.helpers import FULL_CONFIG, load_small_config


def timm_cfg(name: str, backbone: str = "build_timm_fpn_backbone"):
    cfg = get_project_cfg()
    cfg.MODEL.BACKBONE.NAME = backbone
    cfg.MODEL.TIMM.NAME = name
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    return cfg


@pytest.mark.parametrize("name", ["resnest14d", "tf_efficientnet_lite0", "convnext_atto"])
@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 32)])
def test_strides_and_channels_for_inputs_of_any_size(name, size):
    backbone = build_backbone(timm_cfg(name)).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, *size))
    padded = [(side + 31) // 32 * 32 for side in size]
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for level, (feature_name, feature) in enumerate(features.items(), start=2):
        spec = backbone.output_shape()[feature_name]
        assert (spec.channels, spec.stride) == (32, 2**level)
        # P6 subsamples P5 by 2 and rounds up.
        expected = [-(-side // spec.stride) for side in padded]
        assert feature.shape == (2, 32, *expected)


def test_nhwc_bodies_come_out_as_nchw():
    """And Swin looks at pictures of any size."""
    body = TimmBody("swin_tiny_patch4_window7_224", freeze_at=1).eval()
    for size in ((224, 224), (96, 160)):
        with torch.no_grad():
            features = body(torch.zeros(1, 3, *size))
        assert [f.shape[1] for f in features.values()] == [96, 192, 384, 768]
        for stride, feature in zip((4, 8, 16, 32), features.values(), strict=True):
            assert feature.shape[-2:] == (size[0] // stride, size[1] // stride)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dla34", "makes features of shapes"),  # timm says 4, 8, 16, 32 of strides 2, 4, 8, 16
        ("hiera_tiny_224", "cannot look at pictures of any size"),
    ],
)
def test_a_body_that_does_not_keep_timms_promise_is_refused(name, message):
    with torch.device("meta"), pytest.raises(UserError, match=f"{name}.*{message}"):
        TimmBody(name)


def test_resnest50_is_registered_and_ignores_the_timm_name():
    assert "build_resnest50_fpn_backbone" in BACKBONE_REGISTRY
    with torch.device("meta"):
        body = BACKBONE_REGISTRY.get("build_resnest50_fpn_backbone")(
            timm_cfg("tf_efficientnet_lite0"), ShapeSpec(channels=3)
        ).bottom_up
    assert [spec.channels for spec in body.output_shape().values()] == [256, 512, 1024, 2048]


@pytest.mark.parametrize(
    ("freeze_at", "frozen_prefixes"),
    [
        (0, ()),
        (1, ("body.conv1.", "body.bn1.")),
        (2, ("body.conv1.", "body.bn1.", "body.layer1.")),
        (3, ("body.conv1.", "body.bn1.", "body.layer1.", "body.layer2.")),
    ],
)
@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_freeze_at_has_detectron2s_meaning(freeze_at, frozen_prefixes, norm):
    body = TimmBody("resnest14d", norm=norm, freeze_at=freeze_at).train()
    for name, parameter in body.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen_prefixes or ("-",)), name
    for name, module in body.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.training != f"{name}.".startswith(frozen_prefixes or ("-",)), name


def test_frozen_norms_keep_their_statistics_and_their_activation():
    body = TimmBody("tf_efficientnet_lite0", norm="FrozenBN").train()
    before = {k: v.clone() for k, v in body.state_dict().items() if "bn" in k}
    features = body(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[k], v) for k, v in body.state_dict().items() if "bn" in k)
    body.eval()
    # A dropped ReLU6 would let values run away through the depth of the network.
    assert all(feature.abs().max() < 1e3 for feature in features.values())


def test_only_frozenbn_freezes_norms_beyond_the_frozen_stages():
    trained = TimmBody("tf_efficientnet_lite0", norm="BN", freeze_at=0)
    assert all(p.requires_grad for p in trained.parameters())
    frozen = TimmBody("tf_efficientnet_lite0", norm="FrozenBN", freeze_at=0)
    assert {n.split(".")[-2][:2] for n, p in frozen.named_parameters() if not p.requires_grad} == {
        "bn"
    }


def test_gradients_reach_every_trainable_parameter_and_no_frozen_one(small_opts):
    # Every anchor is sampled: a few drawn at random may leave out a level.
    opts = ["MODEL.TIMM.NORM", "BN", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "100000"]
    cfg = load_small_config([*small_opts, *opts])
    model = build_model(cfg).train()
    with EventStorage():
        losses = model(next(iter(Trainer.build_train_loader(cfg))))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0 or name.endswith("bias"), name
        else:
            assert parameter.grad is None, name


def full_model(num_mask_heads: int) -> nn.Module:
    """The tiny-VOC recipe's model, without memory for its weights."""
    opts = ["MODEL.DEVICE", "meta", "MODEL.ROI_MASK_HEAD.NUM_HEADS", str(num_mask_heads)]
    with torch.device("meta"):
        return build_model(load_config(str(FULL_CONFIG), opts, default_config=""))


def test_parameter_count_of_the_full_model():
    model = full_model(num_mask_heads=1)

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    heads = model.roi_heads
    body = model.backbone.bottom_up
    counts = {
        "model": count(model),
        "body": count(body),
        "FPN": count(model.backbone) - count(body),
        "RPN": count(model.proposal_generator),
        "box heads": count(heads.box_head, heads.box_predictor),
        "mask head": count(heads.mask_head),
    }
    assert {part: round(number / 1e6, 2) for part, number in counts.items()} == {
        "model": 77.70,
        "body": 25.43,
        "FPN": 3.34,
        "RPN": 0.59,
        "box heads": 45.70,
        "mask head": 2.63,
    }
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 264_064


def test_parameter_count_of_the_originals_three_mask_heads():
    parameters = list(full_model(num_mask_heads=3).parameters())
    assert sum(p.numel() for p in parameters) == 82_958_358
    assert sum(p.numel() for p in parameters if not p.requires_grad) == 264_064


@pytest.mark.parametrize(
    ("name", "message"),
    [("vit_tiny_patch16_224", "strides"), ("resnest99", "Unknown model")],
)
def test_a_model_without_the_four_strides_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        TimmBody(name)


def test_stages_that_are_no_modules_cannot_be_frozen_by_number():
    TimmBody("hrnet_w18_small", freeze_at=0)
    with pytest.raises(UserError, match="FREEZE_AT 0"):
        TimmBody("hrnet_w18_small", freeze_at=2)


def test_wrong_norm_and_freeze_at_are_refused():
    with pytest.raises(UserError, match=r"MODEL\.TIMM\.NORM"):
        TimmBody("resnest14d", norm="GN")
    with pytest.raises(UserError, match="FREEZE_AT"):
        TimmBody("resnest14d", freeze_at=7)


def test_pixel_statistics_that_are_not_the_bodys_are_a_warning():
    cfg = get_project_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [123.68, 116.779, 103.939]  # 0.06 grey levels off timm's own
    cfg.MODEL.PIXEL_STD = [58.393, 57.12, 57.375]
    assert input_statistics_warnings(cfg, "resnest50d") == []
    assert len(input_statistics_warnings(cfg, "tf_efficientnet_lite0")) == 2
    cfg.INPUT.FORMAT = "BGR"
    assert "RGB" in input_statistics_warnings(cfg, "resnest50d")[0]


def test_the_fpn_takes_the_features_that_the_config_names():
    cfg = timm_cfg("resnet18")
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    backbone = build_backbone(cfg)
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert list(features) == ["p3", "p4", "p5", "p6"]
    for name, feature in features.items():
        assert backbone.output_shape()[name].stride * feature.shape[-1] in (96, 128), name


@pytest.mark.parametrize(
    "features", [["res3", "res5"], ["res5", "res4"], ["p3"], ["res5", "res6"], ["res2", "res3"]]
)
def test_features_that_an_fpn_cannot_take_are_refused(features):
    cfg = timm_cfg("resnet18")
    cfg.MODEL.FPN.IN_FEATURES = features
    with pytest.raises(UserError, match=r"MODEL\.FPN\.IN_FEATURES"):
        build_backbone(cfg)
