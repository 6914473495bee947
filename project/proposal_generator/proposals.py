"""From the RPN's predictions to proposals (Faster R-CNN, section 3.3; FPN, section 4.1)."""

from collections.abc import Sequence

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torchvision.ops import nms


@torch.no_grad()
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
    scores, boxes = [], []
    for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
        number = min(pre_nms_topk, level_logits.shape[1])
        order = level_logits.argsort(dim=1, descending=True, stable=True)[:, :number]
        of_level = level_deltas.gather(1, order[..., None].expand(-1, -1, 4))
        decoded = transform.apply_deltas(
            of_level.flatten(0, 1), level_anchors.tensor[order.flatten()]
        )
        scores.append(level_logits.gather(1, order))
        boxes.append(decoded.view(*order.shape, 4))
    levels = [level.shape[1] for level in scores]
    scores, boxes = torch.cat(scores, dim=1).float(), torch.cat(boxes, dim=1)
    finite = boxes.isfinite().all(dim=2) & scores.isfinite()
    limits = boxes.new_tensor([(width, height) * 2 for height, width in image_sizes])
    boxes = torch.minimum(boxes.clamp(min=0), limits.view(-1, 1, 4))
    valid = finite & (boxes[..., 2:] - boxes[..., :2] > min_box_size).all(dim=2)
    # An empty box overlaps no other: it need not be taken out before NMS.
    boxes = boxes.where(valid[..., None], 0)
    results = []
    for picture, size in enumerate(image_sizes):
        kept, start = [], 0
        for of_level in zip(
            boxes[picture].split(levels), scores[picture].split(levels), strict=True
        ):
            kept.append(nms(*of_level, nms_thresh) + start)
            start += len(of_level[0])
        kept = torch.cat(kept)
        kept = kept[valid[picture, kept]]
        order = scores[picture, kept].argsort(descending=True, stable=True)[:post_nms_topk]
        proposals = Instances(size)
        proposals.proposal_boxes = Boxes(boxes[picture, kept[order]])
        proposals.objectness_logits = scores[picture, kept[order]]
        results.append(proposals)
    return results
