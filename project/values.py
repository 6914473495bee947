"""Values of a config that Detectron2 would refuse late, or with a traceback: said in one line."""

import math
from functools import reduce
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)

from project.errors import UserError, require_choice

MAX_SEED = 2**32  # NumPy's
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN")
CHOICES = {
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
}
MODEL_CHOICES = {
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
}
REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
}
AT_LEAST = {
    "SOLVER.BASE_LR": math.ulp(0),
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.CHECKPOINT_KEEP.BEST": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.REPEAT_THRESHOLD": 0,
    "TEST.EARLY_STOP_PATIENCE": 0,
}


def require_sound_model(cfg: CfgNode) -> None:
    """Raise :class:`UserError` for the first value of a config that no model can have."""
    for key, choices in MODEL_CHOICES.items():
        require_choice(key, value_of(cfg, key), choices)
    for key, registry in REGISTRIES.items():
        name = value_of(cfg, key)
        if name not in registry:
            known = ", ".join(name for name, _ in registry)
            raise UserError(f"{key} is {name!r}; choose one of {known}")
    threshold = cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST
    if cfg.MODEL.META_ARCHITECTURE != "ExtendedRCNN" and threshold != 0.5:
        raise UserError(
            f"MODEL.ROI_MASK_HEAD.THRESH_TEST is {threshold}: MODEL.META_ARCHITECTURE"
            f" {cfg.MODEL.META_ARCHITECTURE} always takes 0.5, ExtendedRCNN what is asked for"
        )
    if "Cascade" in cfg.MODEL.ROI_HEADS.NAME:
        _require_sound_cascade(cfg)


def _require_sound_cascade(cfg: CfgNode) -> None:
    cascade, thresholds = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS
    if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
        raise UserError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS has {len(cascade.IOUS)} stages and BBOX_REG_WEIGHTS"
            f" {len(cascade.BBOX_REG_WEIGHTS)}; give both as many"
        )
    if list(cascade.IOUS[:1]) != list(thresholds[:1]):
        raise UserError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS {cascade.IOUS} must begin with the IoU of"
            f" MODEL.ROI_HEADS.IOU_THRESHOLDS, {thresholds}"
        )


def require_sound_values(cfg: CfgNode) -> None:
    """Raise :class:`UserError` for the first value of a training's config that cannot be."""
    for key, choices in CHOICES.items():
        require_choice(key, value_of(cfg, key), choices)
    for key, least in AT_LEAST.items():
        value = value_of(cfg, key)
        if not (isinstance(value, (int, float)) and value >= least):
            which = "more than 0" if 0 < least < 1 else f"{least} or more"
            raise UserError(f"{key} is {value!r}; choose a number, {which}")
    for key, what in (("STEPS", "iterations"), ("STEP_EPOCHS", "epochs")):
        steps = list(cfg.SOLVER[key])
        if any(step >= following for step, following in pairwise([0, *steps])):
            raise UserError(f"SOLVER.{key} {steps}: give {what} above 0, in ascending order")
    if cfg.SEED >= MAX_SEED:
        raise UserError(f"SEED is {cfg.SEED}; choose a number below {MAX_SEED}")
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN names no data set")


def value_of(cfg: CfgNode, key: str) -> object:
    """What a config says under a key such as "SOLVER.MAX_ITER"; AttributeError if it has none."""
    return reduce(getattr, key.split("."), cfg)
