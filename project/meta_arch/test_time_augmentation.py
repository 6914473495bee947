"""Detections of a picture at several sizes and flipped, merged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Instances
from torch import nn

from project.data.mapper import channels_first
from project.data.transforms import WithOpenCV
from project.errors import UserError
from project.meta_arch.rcnn import postprocess


class TestTimeAugmentation(GeneralizedRCNNWithTTA):
    """Detectron2's ``GeneralizedRCNNWithTTA`` as ``TEST.AUG`` says, with masks pasted late.

    Boxes of all augmented pictures go through one NMS; the masks of those that stay are averaged
    over the pictures. Takes pictures as they are in the file, and resizes them itself.
    """

    __test__ = False  # it is no test of pytest's

    def __init__(self, cfg: CfgNode, model: nn.Module):
        super().__init__(cfg, model, _Augmenter(cfg), batch_size=1)

    def _inference_one_image(self, input: Mapping) -> dict:
        size = input["height"], input["width"]
        pictures, transforms = self._get_augmented_inputs(input)
        with self._without_masks():
            candidates = self._get_augmented_boxes(pictures, transforms)
        detections = self._merge_detections(*candidates, size)
        if self.cfg.MODEL.MASK_ON:
            boxes = self._rescale_detected_boxes(pictures, detections, transforms)
            with_masks = self._batch_inference(pictures, boxes)
            detections.pred_masks = self._reduce_pred_masks(with_masks, transforms)
        threshold = self.cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST
        return {"instances": postprocess(detections, *size, threshold)}

    @contextmanager
    def _without_masks(self) -> Iterator[None]:
        # As Detectron2's _turn_off_roi_heads, which leaves them off after an error.
        heads = self.model.roi_heads
        heads.mask_on = False
        try:
            yield
        finally:
            heads.mask_on = self.cfg.MODEL.MASK_ON

    def _merge_detections(
        self,
        boxes: torch.Tensor,
        scores: Sequence[torch.Tensor],
        classes: Sequence[torch.Tensor],
        shape_hw: tuple[int, int],
    ) -> Instances:
        # Detectron2's sets each score by itself.
        by_class = boxes.new_zeros((len(boxes), self.cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1))
        if len(boxes):
            by_class[torch.arange(len(boxes)), torch.stack(classes)] = torch.stack(scores)
        merged, _ = fast_rcnn_inference_single_image(
            boxes.float(),
            by_class,
            shape_hw,
            self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return merged


def as_tested(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model that a config tests: with test-time augmentation where ``TEST.AUG.ENABLED``."""
    return TestTimeAugmentation(cfg, model) if cfg.TEST.AUG.ENABLED else model


class _Augmenter:
    """A picture in each of the sizes, plain and flipped, with what was done to it."""

    def __init__(self, cfg: CfgNode):
        keys, sizes = cfg.TEST.AUG, (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        pairs = [tuple(round(size * scale) for size in sizes) for scale in keys.SCALES]
        pairs = pairs or [(size, keys.MAX_SIZE) for size in keys.MIN_SIZES]
        if not pairs or min(map(min, pairs)) < 1:
            raise UserError(f"TEST.AUG: sizes in pixels are {pairs}; choose some of 1 or more")
        resizes = [T.ResizeShortestEdge(*pair) for pair in pairs]
        flips = [[], [T.RandomFlip(prob=1.0)]] if keys.FLIP else [[]]
        self.choices = [
            T.AugmentationList(
                [WithOpenCV(step, cfg.INPUT.RESIZE_BACKEND) for step in (resize, *flip)]
            )
            for resize in resizes
            for flip in flips
        ]

    def __call__(self, record: Mapping) -> list[dict]:
        image = np.ascontiguousarray(record["image"].permute(1, 2, 0).numpy())
        pictures = []
        for choice in self.choices:
            inputs = T.AugInput(image)
            transforms = choice(inputs)
            pictures.append({"image": channels_first(inputs.image), "transforms": transforms})
        return pictures
