"""Box deltas that are clamped from above only, as in Detectron2, or on both sides."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform

from project.errors import require_choice

CLAMPS = ("upper", "both")


class TwoSidedBox2BoxTransform(Box2BoxTransform):
    """Detectron2's transform that also keeps dw and dh from falling below ``-scale_clamp``.

    Without the lower clamp, a box can shrink to nothing in one step. As ``delta2bbox`` of
    mmdetection (mmdet/structures/bbox or core/bbox/coder/delta_xywh_bbox_coder.py).
    """

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """
        Args:
            deltas: (dx, dy, dw, dh), times ``weights``. Shape (N, k * 4).
            boxes: XYXY. Shape (N, 4).

        Returns:
            XYXY, float32. Shape (N, k * 4).
        """
        deltas = deltas.float().clone()
        for offset, weight in ((2, self.weights[2]), (3, self.weights[3])):
            deltas[:, offset::4] = deltas[:, offset::4].clamp(min=-weight * self.scale_clamp)
        return super().apply_deltas(deltas, boxes)


def build_box2box_transform(cfg: CfgNode, weights: tuple[float, ...]) -> Box2BoxTransform:
    """The transform of ``cfg.MODEL.DELTA_CLAMP``.

    Args:
        weights: of dx, dy, dw, dh: one over mmdetection's ``target_stds``.
    """
    require_choice("MODEL.DELTA_CLAMP", cfg.MODEL.DELTA_CLAMP, CLAMPS)
    transform = Box2BoxTransform if cfg.MODEL.DELTA_CLAMP == "upper" else TwoSidedBox2BoxTransform
    return transform(weights=tuple(weights))
