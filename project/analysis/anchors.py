"""How the boxes of a data set meet a recipe's anchors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.structures import Boxes, BoxMode, pairwise_iou


@dataclass(frozen=True)
class AnchorFit:
    """The best anchor of each object, of those that ``RPN.BOUNDARY_THRESH`` lets train.

    Attributes:
        ious: its IoU with the object's box. Float, shape (N,).
        levels: index into the RPN's features, the finest first. int, shape (N,).
        sides: square root of the box's area, in pixels of the model's input. Float, shape (N,).
        ratios: height / width. Float, shape (N,).
        classes: index of the class. int, shape (N,).
    """

    ious: np.ndarray
    levels: np.ndarray
    sides: np.ndarray
    ratios: np.ndarray
    classes: np.ndarray


def fit_anchors(cfg: CfgNode, records: Iterable[Mapping]) -> AnchorFit:
    """Compare every object of ``records`` with the anchors, at the size that is tested with.

    Args:
        cfg: of the model.
        records: in Detectron2's format, with annotations; crowds are left out.
    """
    backbone = build_backbone(cfg)
    shapes = [backbone.output_shape()[name] for name in cfg.MODEL.RPN.IN_FEATURES]
    generator = build_anchor_generator(cfg, shapes)
    strides = [shape.stride for shape in shapes]
    limits = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST

    @lru_cache(maxsize=8)  # of 800 x 1333 pixels, 6 MB
    def anchors_of(size: tuple[int, int]) -> tuple[Boxes, torch.Tensor]:
        return _anchors(generator, size, strides, backbone.size_divisibility)

    rows = []
    for record in records:
        annotations = [item for item in record["annotations"] if not item.get("iscrowd", 0)]
        if not annotations:
            continue
        height, width = size = record["height"], record["width"]
        if limits[0]:  # 0 stands for pictures as they are
            size = T.ResizeShortestEdge.get_output_shape(height, width, *limits)
        anchors, levels = anchors_of(size)
        boxes = np.array(
            [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in annotations]
        )
        boxes = boxes * ([size[1] / width, size[0] / height] * 2)
        boxes = torch.as_tensor(boxes, dtype=torch.float32)
        iou = pairwise_iou(Boxes(boxes), anchors)
        if cfg.MODEL.RPN.BOUNDARY_THRESH >= 0:
            iou[:, ~anchors.inside_box(size, cfg.MODEL.RPN.BOUNDARY_THRESH)] = 0
        best, index = iou.max(dim=1)
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        classes = torch.tensor([item["category_id"] for item in annotations])
        columns = best, levels[index], (width * height).sqrt(), height / width, classes
        rows.append(torch.stack([column.double() for column in columns]))
    table = torch.cat(rows, dim=1).numpy() if rows else np.zeros((5, 0))
    ious, levels, sides, ratios, classes = table
    return AnchorFit(ious, levels.astype(int), sides, ratios, classes.astype(int))


def _anchors(
    generator: torch.nn.Module, image_hw: tuple[int, int], strides: Sequence[int], divisor: int
) -> tuple[Boxes, torch.Tensor]:
    """All anchors of a picture, and the index of the level of each."""
    padded = [-(-side // max(divisor, 1)) * max(divisor, 1) for side in image_hw]
    features = [torch.zeros(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
    of_levels = generator(features)
    levels = [torch.full((len(boxes),), level) for level, boxes in enumerate(of_levels)]
    return Boxes.cat(of_levels), torch.cat(levels)
