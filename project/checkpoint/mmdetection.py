"""mmdetection's names: its Cascade Mask R-CNN with ResNeSt and FPN, of versions 2 and 3 alike."""

from torch import Tensor

from project.checkpoint.name_table import NameTable
from project.checkpoint.weight_format import BODY_PREFIX, StateDict, WeightFormat

_LEVELS = range(4)  # C2..C5; mmdetection counts from 0
_CONVOLUTIONS = range(8)
_CONV_AND_NORM = (("conv", ""), ("bn", ".norm"))

MMDETECTION_NAMES = NameTable(
    {
        # timm calls the last norm of the deep stem bn1, apart from the others.
        "backbone.stem": f"{BODY_PREFIX}conv1",
        "backbone.stem.7": f"{BODY_PREFIX}bn1",
        "backbone.layer*": f"{BODY_PREFIX}layer*",
        **{
            f"neck.{theirs}_convs.{i}.{part}": f"backbone.fpn_{ours}{i + 2}{suffix}"
            for theirs, ours in (("lateral", "lateral"), ("fpn", "output"))
            for i in _LEVELS
            for part, suffix in _CONV_AND_NORM
        },
        "rpn_head.rpn_conv": "proposal_generator.rpn_head.conv",
        "rpn_head.rpn_cls": "proposal_generator.rpn_head.objectness_logits",
        "rpn_head.rpn_reg": "proposal_generator.rpn_head.anchor_deltas",
        **{
            f"roi_head.{theirs}.{i}.{part}": f"roi_heads.{ours}{i + 1}{suffix}"
            for theirs, ours in (
                ("bbox_head.*.shared_convs", "box_head.*.conv"),
                ("mask_head.*.convs", "mask_head.*.mask_fcn"),
            )
            for i in _CONVOLUTIONS
            for part, suffix in _CONV_AND_NORM
        },
        "roi_head.bbox_head.*.shared_fcs.0": "roi_heads.box_head.*.fc1",
        "roi_head.bbox_head.*.shared_fcs.1": "roi_heads.box_head.*.fc2",
        "roi_head.bbox_head.*.fc_cls": "roi_heads.box_predictor.*.cls_score",
        "roi_head.bbox_head.*.fc_reg": "roi_heads.box_predictor.*.bbox_pred",
        "roi_head.mask_head.*.upsample": "roi_heads.mask_head.*.deconv",
        "roi_head.mask_head.*.conv_logits": "roi_heads.mask_head.*.predictor",
    }
)


def _recognises(state: StateDict) -> bool:
    return any(name.startswith(("roi_head.", "rpn_head.", "neck.")) for name in state)


def _rename(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return {MMDETECTION_NAMES.to_ours(name) or name: tensor for name, tensor in state.items()}


MMDETECTION = WeightFormat(
    name="mmdetection",
    recognises=_recognises,
    rename=_rename,
    # mmdetection 2's EMA hook keeps "ema_backbone_stem_0_weight" and so on in the model and swaps
    # them before it saves, so that the plain names hold the averages. (mmdetection 3 does the same
    # with a second dictionary.)
    may_be_left={"ema_": "not averaged, of the EMA hook"},
)


def _rename_body(state: StateDict, model_names: set[str]) -> dict[str, Tensor]:
    return _rename({f"backbone.{name}": tensor for name, tensor in state.items()}, model_names)


MMDETECTION_BODY = WeightFormat(
    name="mmdetection's ResNeSt",
    recognises=lambda state: "stem.0.weight" in state and "layer1.0.conv1.weight" in state,
    rename=_rename_body,
    scope=BODY_PREFIX,
    may_be_left={"backbone.fc.": "classification head"},
)
