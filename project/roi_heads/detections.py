"""From class scores and boxes to detections (Fast R-CNN, section 2.3)."""

import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import batched_nms

from project.structures.clipping import box_limits, clip_boxes

# NMS takes time with the square of their number, which a low threshold makes large.
NUM_CANDIDATES = 2000


def find_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_size: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """What Detectron2's ``fast_rcnn_inference`` finds in one picture, with less work.

    What a detection suppresses is less certain than itself: as long as enough of the most certain
    candidates are left, the others need not be looked at.

    Args:
        boxes: XYXY, of R RoIs. Shape (R, 4).
        scores: of K classes and of the background. Shape (R, K + 1).
        image_size: height and width of the picture, to which boxes are clipped.
        score_thresh: detections are more certain.
        nms_thresh: of two boxes of a class with a larger IoU the less certain one is left out.
        topk: detections at most; all if negative.

    Returns:
        ``pred_boxes``, ``scores`` and ``pred_classes`` (int64), the most certain one first. What is
        not finite is none.
    """
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    boxes = clip_boxes(boxes.where(finite[:, None], 0), box_limits([image_size], boxes.device))
    num_classes = scores.shape[1] - 1
    scores = scores[:, :-1].where(finite[:, None], -torch.inf).flatten()
    candidates = (scores > score_thresh).nonzero()[:, 0]
    candidates = candidates[scores[candidates].argsort(descending=True, stable=True)]
    for some in (candidates[:NUM_CANDIDATES], candidates):
        rois, classes = some // num_classes, some % num_classes
        kept = batched_nms(boxes[rois], scores[some], classes, nms_thresh)
        if len(some) == len(candidates) or 0 <= topk <= len(kept):
            break
    if topk >= 0:
        kept = kept[:topk]
    found = Instances(image_size)
    found.pred_boxes = Boxes(boxes[rois[kept]])
    found.scores = scores[some[kept]]
    found.pred_classes = classes[kept]
    return found
