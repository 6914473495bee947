"""The region proposal network of Faster R-CNN, with Detectron2's or mmdetection's rules."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.memory import retry_if_cuda_oom

from project.box_regression import build_box2box_transform
from project.errors import require_choice
from project.layers.cuda_graphs import GraphedCalls
from project.loss_normalizer import share_of_mean
from project.proposal_generator.matcher import AnchorMatcher
from project.proposal_generator.proposals import (
    Candidates,
    find_candidates,
    find_top_proposals,
    select_proposals,
)
from project.seeding import subsample_labels
from project.structures.clipping import box_limits

LOSS_NORMALIZERS = ("batch_size", "sampled")


@PROPOSAL_GENERATOR_REGISTRY.register()
class ExtendedRPN(RPN):
    """Detectron2's ``RPN``; with the default config it computes the same.

    Args:
        loss_normalizer: what both losses are divided by: "batch_size" of sampled anchors that was
            asked for, or the number that was "sampled".
        sync_loss_normalizer: whether "sampled" is the mean over all processes.
        kwargs: see ``RPN``. With ``anchor_boundary_thresh`` >= 0, anchors that leave the picture by
            more are left out before matching, so that they cannot be an object's best one
            (Detectron2 ignores them after matching).

    Source of the rules: ``AnchorHead`` and ``RPNHead`` of mmdetection (mmdet/models/dense_heads).

    Attributes:
        graphed: at inference, what precedes NMS is called through it.
    """

    graphed: GraphedCalls | None = None

    @configurable
    def __init__(
        self,
        *,
        loss_normalizer: str = "batch_size",
        sync_loss_normalizer: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.loss_normalizer = loss_normalizer
        self.sync_loss_normalizer = sync_loss_normalizer

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        rpn = cfg.MODEL.RPN
        require_choice("MODEL.RPN.LOSS_NORMALIZER", rpn.LOSS_NORMALIZER, LOSS_NORMALIZERS)
        return {
            **super().from_config(cfg, input_shape),
            "loss_normalizer": rpn.LOSS_NORMALIZER,
            "sync_loss_normalizer": cfg.SOLVER.SYNC_LOSS_NORMALIZER,
            "box2box_transform": build_box2box_transform(cfg, rpn.BBOX_REG_WEIGHTS),
            "anchor_matcher": AnchorMatcher(
                rpn.IOU_THRESHOLDS,
                rpn.IOU_LABELS,
                min_iou=rpn.LOW_QUALITY_MIN_IOU,
                reassign=rpn.LOW_QUALITY_REASSIGN,
            ),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See ``RPN.forward``: proposals and losses."""
        is_graphed = self.graphed is not None and self.graphed.applies_to(images.tensor)
        if self.training or not is_graphed:
            return super().forward(images, features, gt_instances)
        limits = box_limits(images.image_sizes, images.tensor.device)
        used = [features[name] for name in self.in_features]
        modules = [self.rpn_head, self.anchor_generator]
        candidates = self.graphed(self._find_candidates, modules, limits, *used)
        return select_proposals(
            candidates,
            images.image_sizes,
            nms_thresh=self.nms_thresh,
            post_nms_topk=self.post_nms_topk[False],
        ), {}

    def _find_candidates(self, limits: torch.Tensor, *features: torch.Tensor) -> Candidates:
        logits, deltas = self.rpn_head(list(features))
        return find_candidates(
            self.anchor_generator(list(features)),
            # (N, A, H, W) and (N, A * 4, H, W) in the order of anchors: row, column, A.
            [x.permute(0, 2, 3, 1).flatten(1) for x in logits],
            [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas],
            limits,
            self.box2box_transform,
            pre_nms_topk=self.pre_nms_topk[False],
            min_box_size=self.min_box_size,
        )

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """See ``RPN.predict_proposals``."""
        if torch.jit.is_tracing():  # which would fix the numbers of boxes
            return super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        return find_top_proposals(
            anchors,
            pred_objectness_logits,
            pred_anchor_deltas,
            image_sizes,
            self.box2box_transform,
            nms_thresh=self.nms_thresh,
            pre_nms_topk=self.pre_nms_topk[self.training],
            post_nms_topk=self.post_nms_topk[self.training],
            min_box_size=self.min_box_size,
        )

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """
        Args:
            anchors: of each level.
            gt_instances: the objects of each picture; their ``image_size`` is that of the picture
                without padding.

        Returns:
            For each picture the labels of its R anchors (1 positive, 0 negative, -1 ignored), shape
            (R,), and the boxes of their objects, shape (R, 4).
        """
        anchors = Boxes.cat(anchors)
        labels, boxes = [], []
        for picture, instances in enumerate(gt_instances):
            inside = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
            if self.anchor_boundary_thresh >= 0:
                inside = anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
            iou = retry_if_cuda_oom(pairwise_iou)(instances.gt_boxes, anchors[inside])
            matches, inside_labels = retry_if_cuda_oom(self.anchor_matcher)(iou)
            positive, negative = subsample_labels(
                inside_labels.to(anchors.device),
                picture,
                self.batch_size_per_image,
                self.positive_fraction,
                background=0,
            )
            candidates = inside.nonzero()[:, 0]
            labels.append(torch.full_like(inside, -1, dtype=torch.int8))
            labels[-1][candidates[positive]] = 1
            labels[-1][candidates[negative]] = 0
            boxes.append(torch.zeros_like(anchors.tensor))
            if len(instances):
                matches = matches.to(anchors.device)
                boxes[-1][candidates] = instances.gt_boxes.tensor[matches].to(boxes[-1].dtype)
        return labels, boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """See ``RPN.losses``."""
        losses = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        if self.loss_normalizer == "batch_size":
            return losses
        labels = torch.stack(gt_labels)
        # mmdetection counts at least one positive and one negative for each picture.
        sampled = sum((labels == label).sum(dim=1).clamp(min=1).sum() for label in (0, 1))
        scale = self.batch_size_per_image * len(gt_labels) / sampled
        if self.sync_loss_normalizer:
            scale = scale * share_of_mean(sampled, labels.device)
        return {name: loss * scale for name, loss in losses.items()}
