"""Detectron2's ``GeneralizedRCNN``, ready for speed."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances, ROIMasks

from project.errors import UserError, require_choice
from project.layers.cuda_graphs import GraphedCalls
from project.precision import DTYPES, computes_in_bfloat16, resolve_dtype
from project.proposal_generator.rpn import ExtendedRPN
from project.roi_heads.cascade import ExtendedCascadeROIHeads
from project.structures.pasted_masks import PastedMasks


@META_ARCH_REGISTRY.register()
class ExtendedRCNN(GeneralizedRCNN):
    """Detectron2's, whose detections hold their masks as :class:`PastedMasks`.

    Args:
        inference_dtype: of convolutions and linear layers at inference, as in autocast. "auto" is
            bfloat16 where the machine computes with it, else float32.
        channels_last: keep pictures, features and weights with their channels last in memory.
        cuda_graphs: call backbone, RPN and RoI heads through :class:`GraphedCalls` at inference.
        mask_threshold: see :func:`postprocess`.
        kwargs: see ``GeneralizedRCNN``.
    """

    @configurable
    def __init__(
        self,
        *,
        inference_dtype: str = "float32",
        channels_last: bool = False,
        cuda_graphs: bool = False,
        mask_threshold: float = 0.5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mask_threshold = mask_threshold
        self.inference_dtype = inference_dtype
        self.channels_last = channels_last
        self.graphed = GraphedCalls() if cuda_graphs else None
        for part in (self.proposal_generator, self.roi_heads):
            if isinstance(part, (ExtendedRPN, ExtendedCascadeROIHeads)):
                part.graphed = self.graphed
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        require_choice("MODEL.INFERENCE_DTYPE", cfg.MODEL.INFERENCE_DTYPE, DTYPES)
        mask_threshold = cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST
        if not 0 < mask_threshold < 1:
            raise UserError(
                f"MODEL.ROI_MASK_HEAD.THRESH_TEST is {mask_threshold}; choose a probability"
                " between 0 and 1"
            )
        device = torch.device(cfg.MODEL.DEVICE)
        return {
            **super().from_config(cfg),
            "inference_dtype": cfg.MODEL.INFERENCE_DTYPE,
            # What it is worth on earlier GPUs is not known (docs/performance.md).
            "channels_last": device.type == "cpu" or computes_in_bfloat16(device),
            "cuda_graphs": cfg.MODEL.CUDA_GRAPHS,
            "mask_threshold": mask_threshold,
        }

    def train(self, mode: bool = True) -> "ExtendedRCNN":
        """As ``nn.Module.train``; training needs the memory of what was kept for inference."""
        if mode and self.graphed is not None:
            self.graphed.clear()
        return super().train(mode)

    def preprocess_image(self, batched_inputs: Sequence[dict]) -> ImageList:
        """Normalised and padded pictures."""
        images = super().preprocess_image(batched_inputs)
        if self.channels_last:
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def inference(
        self,
        batched_inputs: Sequence[dict],
        detected_instances: Sequence[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list:
        """See ``GeneralizedRCNN.inference``."""
        dtype = resolve_dtype(self.inference_dtype, self.device, otherwise=torch.float32)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            images = self.preprocess_image(batched_inputs)
            if self.graphed is None:
                features = self.backbone(images.tensor)
            else:
                features = self.graphed(self.backbone, [self.backbone], images.tensor)
            if detected_instances is not None:
                given = [x.to(self.device) for x in detected_instances]
                results = self.roi_heads.forward_with_given_boxes(features, given)
            else:
                if self.proposal_generator is None:
                    proposals = [x["proposals"].to(self.device) for x in batched_inputs]
                else:
                    proposals, _ = self.proposal_generator(images, features, None)
                results, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return results
        processed = []
        for instances, record in zip(results, batched_inputs, strict=True):
            height, width = instances.image_size
            size = record.get("height", height), record.get("width", width)
            processed.append({"instances": postprocess(instances, *size, self.mask_threshold)})
        return processed


def postprocess(
    instances: Instances, height: int, width: int, mask_threshold: float = 0.5
) -> Instances:
    """Detectron2's ``detector_postprocess``, without pasting the masks.

    Args:
        instances: of a picture of ``instances.image_size``; ``pred_masks``, if any, are
            probabilities of shape (N, 1, M, M). They are changed.
        height, width: of the picture that the detections are wanted for.
        mask_threshold: what is as probable belongs to the mask.

    Returns:
        The detections in its pixels, ``pred_masks`` as :class:`PastedMasks`; without those whose
        box is empty.
    """
    if not instances.has("pred_masks"):
        return detector_postprocess(instances, height, width)
    masks = instances.pred_masks
    instances.remove("pred_masks")
    instances.roi_masks = ROIMasks(masks[:, 0])  # a name that detector_postprocess does not paste
    result = detector_postprocess(instances, height, width)
    probabilities = result.roi_masks.tensor
    result.remove("roi_masks")
    result.pred_masks = PastedMasks(
        probabilities, result.pred_boxes.tensor, (height, width), mask_threshold
    )
    return result
