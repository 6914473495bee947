"""A detector from the picture to the objects in its pixels, as one module that can be traced."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from torch import nn

from project.data.categories import Categories
from project.errors import require_choice
from project.export.resizing import output_size, resize_as_opencv, resize_as_pillow
from project.meta_arch.rcnn import postprocess

_RESIZE = {"pillow": resize_as_pillow, "opencv": resize_as_opencv}


class DetectorGraph(nn.Module):
    """What :class:`project.runtime.detector.OnnxDetector` runs.

    Args:
        model: with RoI heads whose box predictors are a cascade's or one.
        cfg: its config: how pictures are resized.
        categories: of the model.
    """

    def __init__(self, model: GeneralizedRCNN, cfg: CfgNode, categories: Categories):
        super().__init__()
        require_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB", "BGR"))
        self.model = model
        self.resize = _RESIZE[cfg.INPUT.RESIZE_BACKEND]
        self.min_size, self.max_size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.is_bgr = cfg.INPUT.FORMAT == "BGR"
        self.mask_threshold = cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST
        self.register_buffer("category_ids", torch.tensor(categories.ids), persistent=False)

    def forward(
        self, image: torch.Tensor, score_threshold: torch.Tensor, paste_masks: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            image: RGB, uint8, shape (H, W, 3).
            score_threshold: detections below are left out. float32, shape ().
            paste_masks: whether the masks are wanted as pixels. bool, shape ().

        Returns:
            Of the N objects, the most certain first: boxes XYXY in pixels of ``image``, float32
            (N, 4); scores, float32 (N,); category ids, int64 (N,); and, with a mask head, the
            probabilities of the masks within their boxes, float32 (N, M, M), and the masks, bool
            (N, H, W) or, if they are not wanted, (0, 0, 0).
        """
        size = output_size(image, self.min_size, self.max_size)
        resized = self.resize(image, size).permute(2, 0, 1)
        record = {"image": resized.flip(0) if self.is_bgr else resized}
        with score_threshold_of(self.model, score_threshold):
            found = self.model.inference([record], do_postprocess=False)[0]
        height, width = image.shape[:2]
        found = postprocess(found, height, width)
        boxes = found.pred_boxes.tensor
        outputs = boxes, found.scores, self.category_ids[found.pred_classes]
        if not found.has("pred_masks"):
            return outputs
        probabilities = found.pred_masks.probabilities
        masks = paste(probabilities, boxes, height, width, self.mask_threshold, paste_masks)
        return *outputs, probabilities, masks


@contextmanager
def score_threshold_of(model: GeneralizedRCNN, value: float | torch.Tensor) -> Iterator[None]:
    """Let ``model`` leave out detections below ``value``, instead of what its config says."""
    predictor = model.roi_heads.box_predictor
    stages = predictor if isinstance(predictor, nn.ModuleList) else [predictor]
    before = [stage.test_score_thresh for stage in stages]
    for stage in stages:
        stage.test_score_thresh = value
    try:
        yield
    finally:
        for stage, threshold in zip(stages, before, strict=True):
            stage.test_score_thresh = threshold


def paste(
    probabilities: torch.Tensor,
    boxes: torch.Tensor,
    height: int,
    width: int,
    threshold: float,
    wanted: torch.Tensor,
) -> torch.Tensor:
    """Detectron2's ``paste_masks_in_image`` as two matrix products.

    Bilinear interpolation is one of the rows, then one of the columns. ``grid_sample`` would take
    two numbers for each pixel of each mask.

    Args:
        probabilities: of each mask within its box. Shape (N, M, M).
        boxes: XYXY, pixels. Shape (N, 4).
        threshold: what is as probable belongs to a mask.
        wanted: bool, shape ().

    Returns:
        bool, shape (N, height, width), or (0, 0, 0).
    """
    side = probabilities.shape[2]
    columns = _interpolation(boxes[:, 0], boxes[:, 2], width, side)
    rows = _interpolation(boxes[:, 1], boxes[:, 3], height, side)
    return _masks_if(wanted, rows, probabilities, columns, threshold)


@torch.jit.script
def _masks_if(
    wanted: torch.Tensor,
    rows: torch.Tensor,
    probabilities: torch.Tensor,
    columns: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """A branch, which a trace keeps."""
    if bool(wanted):
        return rows @ probabilities @ columns.transpose(1, 2) >= threshold
    return torch.zeros([0, 0, 0], dtype=torch.bool)


def _interpolation(start: torch.Tensor, stop: torch.Tensor, pixels: int, side: int) -> torch.Tensor:
    """The weight of each cell of a mask in each pixel. Shape (N, pixels, side)."""
    centers = torch.arange(pixels, device=start.device) + 0.5
    relative = (centers - start[:, None]) / (stop - start)[:, None]
    cells = torch.arange(side, device=start.device)
    return (1.0 - (relative[..., None] * side - 0.5 - cells).abs()).clamp(min=0)
