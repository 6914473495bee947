"""FPN backbones with timm bodies, for ``cfg.MODEL.BACKBONE.NAME``."""

import logging

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from project.backbone.timm_body import FEATURE_NAMES, TimmBody
from project.errors import UserError

logger = logging.getLogger(__name__)

RESNEST50 = "resnest50d"


@BACKBONE_REGISTRY.register()
def build_resnest50_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNeSt-50 (radix 2, deep stem, average-pool downsampling; Zhang et al. 2020) with FPN.

    Returns features "p2" to "p6", strides 4 to 64, of ``cfg.MODEL.FPN.OUT_CHANNELS`` channels; with
    ``cfg.MODEL.FPN.IN_FEATURES`` those of its levels and one more.
    """
    return _build_fpn(cfg, RESNEST50)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Any hierarchical timm model, ``cfg.MODEL.TIMM.NAME``, with FPN.

    Returns the features that :func:`build_resnest50_fpn_backbone` does.
    """
    return _build_fpn(cfg, cfg.MODEL.TIMM.NAME)


def _build_fpn(cfg: CfgNode, timm_name: str) -> FPN:
    body = TimmBody(timm_name, norm=cfg.MODEL.TIMM.NORM, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
    for warning in input_statistics_warnings(cfg, timm_name):
        logger.warning(warning)
    return FPN(
        bottom_up=body,
        in_features=_in_features(cfg),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _in_features(cfg: CfgNode) -> list[str]:
    """The body's features that the FPN takes: all, or ``MODEL.FPN.IN_FEATURES``."""
    chosen = list(cfg.MODEL.FPN.IN_FEATURES or FEATURE_NAMES)
    # Without the last one, the end of the body would compute, and learn, nothing.
    if tuple(chosen) != FEATURE_NAMES[-len(chosen) :]:
        raise UserError(
            f"MODEL.FPN.IN_FEATURES is {chosen}; choose the last ones of"
            f" {', '.join(FEATURE_NAMES)}, in this order"
        )
    return chosen


def input_statistics_warnings(cfg: CfgNode, timm_name: str) -> list[str]:
    """Where the config's pixel statistics are not those that the body was pretrained with.

    timm's models take RGB; off by more than 1 grey level (mean) or 2 % (std) is worth a warning.
    """
    pretrained = timm.get_pretrained_cfg(timm_name)
    if pretrained is None:
        return []
    mean = [255 * value for value in pretrained.mean]
    std = [255 * value for value in pretrained.std]
    warnings = []
    if cfg.INPUT.FORMAT != "RGB":
        warnings.append(f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, but {timm_name} was trained on RGB")
    if any(abs(a - b) > 1 for a, b in zip(cfg.MODEL.PIXEL_MEAN, mean, strict=True)):
        warnings.append(
            f"MODEL.PIXEL_MEAN is {list(cfg.MODEL.PIXEL_MEAN)}, but {timm_name} was trained with"
            f" {[round(value, 3) for value in mean]}"
        )
    if any(abs(a - b) > 0.02 * b for a, b in zip(cfg.MODEL.PIXEL_STD, std, strict=True)):
        warnings.append(
            f"MODEL.PIXEL_STD is {list(cfg.MODEL.PIXEL_STD)}, but {timm_name} was trained with"
            f" {[round(value, 3) for value in std]}"
        )
    return warnings
