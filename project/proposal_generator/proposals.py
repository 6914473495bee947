"""From the RPN's predictions to proposals (Faster R-CNN, section 3.3; FPN, section 4.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torchvision.ops import nms

from project.structures.clipping import box_limits, clip_boxes


class Candidates(NamedTuple):
    """The boxes of each level that enter NMS, the most certain one first.

    Attributes:
        boxes: XYXY, within the picture; zeros for those that are none. Shape (N, k, 4).
        scores: float32, shape (N, k).
        valid: whether it may be a proposal. bool, shape (N, k).
    """

    boxes: list[torch.Tensor]
    scores: list[torch.Tensor]
    valid: list[torch.Tensor]


def find_top_proposals(
    anchors: Sequence[Boxes],
    logits: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    image_sizes: Sequence[tuple[int, int]],
    transform: Box2BoxTransform,
    *,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """What Detectron2's ``find_top_rpn_proposals`` finds, with less work for a GPU.

    NMS goes level by level: torchvision's kernel takes time with the square of the number of boxes.
    Only the boxes that enter it are decoded; the device is waited for once for each level of a
    picture, and once more for the picture. Of equally certain proposals the first one comes first:
    there are some in most pictures, for where every feature is zero, the logit is its bias.

    Args:
        anchors: of each level. Shape (A, 4).
        logits: of each level. Shape (N, A).
        deltas: of each level. Shape (N, A, 4).
        image_sizes: height and width of the N pictures, to which boxes are clipped.
        pre_nms_topk: boxes of a level that enter NMS.
        post_nms_topk: proposals of a picture, of all levels.
        min_box_size: sides of a proposal are longer, in pixels.

    Returns:
        Of each picture ``proposal_boxes`` and ``objectness_logits``, the most certain one first.
        What is not finite is none, in training too, where Detectron2 raises an error.
    """
    candidates = find_candidates(
        anchors,
        logits,
        deltas,
        box_limits(image_sizes, logits[0].device),
        transform,
        pre_nms_topk=pre_nms_topk,
        min_box_size=min_box_size,
    )
    return select_proposals(
        candidates, image_sizes, nms_thresh=nms_thresh, post_nms_topk=post_nms_topk
    )


@torch.no_grad()
def find_candidates(
    anchors: Sequence[Boxes],
    logits: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    limits: torch.Tensor,
    transform: Box2BoxTransform,
    *,
    pre_nms_topk: int,
    min_box_size: float,
) -> Candidates:
    """:func:`find_top_proposals` up to NMS; how many there are does not depend on the numbers.

    Args:
        limits: of the pictures, as :func:`box_limits` gives them. Shape (N, 4).
    """
    candidates = Candidates([], [], [])
    for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
        number = min(pre_nms_topk, level_logits.shape[1])
        order = level_logits.argsort(dim=1, descending=True, stable=True)[:, :number]
        of_level = level_deltas.gather(1, order[..., None].expand(-1, -1, 4))
        decoded = transform.apply_deltas(
            of_level.flatten(0, 1), level_anchors.tensor[order.flatten()]
        )
        boxes, scores = decoded.view(*order.shape, 4), level_logits.gather(1, order).float()
        valid = boxes.isfinite().all(dim=2) & scores.isfinite()
        boxes = clip_boxes(boxes, limits[:, None])
        valid &= (boxes[..., 2:] - boxes[..., :2] > min_box_size).all(dim=2)
        # An empty box overlaps no other: it need not be taken out before NMS.
        candidates.boxes.append(boxes.masked_fill(~valid[..., None], 0))
        candidates.scores.append(scores)
        candidates.valid.append(valid)
    return candidates


@torch.no_grad()
def select_proposals(
    candidates: Candidates,
    image_sizes: Sequence[tuple[int, int]],
    *,
    nms_thresh: float,
    post_nms_topk: int,
) -> list[Instances]:
    """:func:`find_top_proposals` from NMS on."""
    results = []
    for picture, size in enumerate(image_sizes):
        of_picture = [[of_level[picture] for of_level in field] for field in candidates]
        kept, start = [], 0
        for boxes, scores, _ in zip(*of_picture, strict=True):
            kept.append(nms(boxes, scores, nms_thresh) + start)
            start += len(boxes)
        boxes, scores, valid = (torch.cat(field) for field in of_picture)
        kept = torch.cat(kept)
        kept = kept[valid[kept]]
        kept = kept[scores[kept].argsort(descending=True, stable=True)[:post_nms_topk]]
        proposals = Instances(size)
        proposals.proposal_boxes = Boxes(boxes[kept])
        proposals.objectness_logits = scores[kept]
        results.append(proposals)
    return results
