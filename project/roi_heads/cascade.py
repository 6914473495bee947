"""The heads of Cascade R-CNN (Cai and Vasconcelos 2019), as in Detectron2 or in mmdetection."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads, _ScaleGradient
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import nn

from project.box_regression import build_box2box_transform
from project.errors import UserError, require_choice
from project.layers.cuda_graphs import GraphedCalls
from project.layers.roi_align import pool_every_level, use_fast_roi_align
from project.loss_normalizer import share_of_mean
from project.roi_heads.detections import find_detections
from project.roi_heads.matched_masks import MatchedMasks
from project.running_statistics import statistics_left_alone
from project.seeding import subsample_labels
from project.structures.clipping import box_limits, clip_boxes
from project.structures.padding import pad_rows

SCORE_FUSIONS = ("probs", "logits")


@ROI_HEADS_REGISTRY.register()
class ExtendedCascadeROIHeads(CascadeROIHeads):
    """Detectron2's ``CascadeROIHeads``; with the default config it computes the same.

    Args:
        stage_loss_weights: of each stage's losses, the mask loss included.
        resample: whether each stage assigns its proposals anew, adds the ground truth to them and
            samples (``ROI_HEADS.BATCH_SIZE_PER_IMAGE``, ``POSITIVE_FRACTION``), and keeps empty
            boxes; else stages 2 and 3 label the refined boxes of stage 1, without the empty ones.
        score_fusion: average the stages' "probs" or their "logits".
        average_gradient: whether the gradients into the features are divided by the number of
            stages, which goes with equal loss weights.
        sync_loss_normalizer: whether losses are divided by the mean numbers of RoIs, and of
            positive ones, of all processes.
        mask_head: one, trained on the RoIs of stage 1, or a ``ModuleList`` of one for each stage,
            trained on that stage's positives; their probabilities are averaged.
        max_proposals: of a picture, as the RPN gives them at inference.
        kwargs: see ``CascadeROIHeads``.

    Attributes:
        graphed: at inference, stages and mask heads are called through it, with RoIs filled up to
            fixed numbers.

    Source of the choices: ``CascadeRoIHead`` of mmdetection
    (mmdet/models/roi_heads/cascade_roi_head.py).
    """

    graphed: GraphedCalls | None = None

    @configurable
    def __init__(
        self,
        *,
        max_proposals: int = 1000,
        stage_loss_weights: Sequence[float] = (1.0, 1.0, 1.0),
        resample: bool = False,
        score_fusion: str = "probs",
        average_gradient: bool = True,
        sync_loss_normalizer: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for pooler in (self.box_pooler, self.mask_pooler if self.mask_on else None):
            if pooler is not None:
                use_fast_roi_align(pooler)
        self.max_proposals = max_proposals
        self.sync_loss_normalizer = sync_loss_normalizer
        self.stage_loss_weights = tuple(stage_loss_weights)
        self.resample = resample
        self.score_fusion = score_fusion
        self.average_gradient = average_gradient

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
        require_choice(
            "MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION", cascade.SCORE_FUSION, SCORE_FUSIONS
        )
        if len(cascade.STAGE_LOSS_WEIGHTS) != len(cascade.IOUS):
            raise UserError(
                f"MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS has"
                f" {len(cascade.STAGE_LOSS_WEIGHTS)} weights for {len(cascade.IOUS)} stages (IOUS)"
            )
        return {
            **super().from_config(cfg, input_shape),
            "max_proposals": cfg.MODEL.RPN.POST_NMS_TOPK_TEST,
            "stage_loss_weights": cascade.STAGE_LOSS_WEIGHTS,
            "resample": cascade.RESAMPLE,
            "score_fusion": cascade.SCORE_FUSION,
            "average_gradient": cascade.AVERAGE_GRADIENT,
            "sync_loss_normalizer": cfg.SOLVER.SYNC_LOSS_NORMALIZER,
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super()._init_box_head(cfg, input_shape)
        weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
        for predictor, stage_weights in zip(ret["box_predictors"], weights, strict=True):
            predictor.box2box_transform = build_box2box_transform(cfg, stage_weights)
        return ret

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super()._init_mask_head(cfg, input_shape)
        num_heads = cfg.MODEL.ROI_MASK_HEAD.NUM_HEADS
        num_stages = len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS)
        require_choice("MODEL.ROI_MASK_HEAD.NUM_HEADS", num_heads, (1, num_stages))
        if ret and num_heads > 1:
            further = [
                super(ExtendedCascadeROIHeads, cls)._init_mask_head(cfg, input_shape)["mask_head"]
                for _ in range(num_heads - 1)
            ]
            ret["mask_head"] = nn.ModuleList([ret["mask_head"], *further])
        return ret

    @property
    def has_mask_head_per_stage(self) -> bool:
        """Whether each stage has a mask head of its own."""
        return self.mask_on and isinstance(self.mask_head, nn.ModuleList)

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See ``ROIHeads.forward``: (RoIs of stage 1, losses) or (detections, {})."""
        if not self.training:
            return super().forward(images, features, proposals)
        box_features = [features[name] for name in self.box_in_features]
        losses = {}
        for stage in range(self.num_cascade_stages):
            rois = self._label_proposals(proposals, targets, stage)
            if stage == 0:
                first_rois = rois
            predictions = self._run_stage(box_features, rois, stage)
            with get_event_storage().name_scope(f"stage{stage}"):
                stage_losses = self.box_predictor[stage].losses(predictions, rois)
                if self.sync_loss_normalizer:
                    share = share_of_mean(len(predictions[0]), predictions[0].device)
                    stage_losses = {name: loss * share for name, loss in stage_losses.items()}
                if self.has_mask_head_per_stage:
                    stage_losses.update(self._mask_losses(features, rois, self.mask_head[stage]))
            weight = self.stage_loss_weights[stage]
            losses.update({f"{k}_stage{stage}": v * weight for k, v in stage_losses.items()})
            proposals = self._refine(predictions, rois, stage)
        if self.mask_on and not self.has_mask_head_per_stage:
            losses.update(self._mask_losses(features, first_rois, self.mask_head))
        losses.update(self._forward_keypoint(features, first_rois))
        return first_rois, losses

    @torch.no_grad()
    def _label_proposals(
        self, proposals: list[Instances], targets: list[Instances], stage: int
    ) -> list[Instances]:
        """RoIs to train a stage on: sampled ones, or in later stages without ``resample`` all.

        Returns:
            For each picture the fields ``proposal_boxes``, ``gt_classes`` (``num_classes`` for
            background), ``is_ground_truth`` (bool) and, where the picture has objects, those of its
            matched object: ``gt_boxes``, ``gt_masks``, ...
        """
        samples = stage == 0 or self.resample
        all_rois, counts = [], []
        for picture, (given, target) in enumerate(zip(proposals, targets, strict=True)):
            boxes = given.proposal_boxes
            matches, labels = self.proposal_matchers[stage](pairwise_iou(target.gt_boxes, boxes))
            num_proposals, num_objects = len(boxes), len(target)
            if samples and self.proposal_append_gt:
                # After the assignment, as mmdetection does: an object's own box is its own, even
                # where another object has the same box.
                boxes = Boxes.cat([boxes, target.gt_boxes])
                own = torch.arange(num_objects, device=matches.device)
                matches = torch.cat([matches, own])
                labels = torch.cat([labels, labels.new_ones(num_objects)])
            classes = torch.full_like(matches, self.num_classes)
            if num_objects:
                classes = torch.where(labels == 1, target.gt_classes[matches], classes)
            indices = torch.arange(len(boxes), device=matches.device)
            if samples:
                number, fraction = self.batch_size_per_image, self.positive_fraction
                indices = torch.cat(
                    subsample_labels(classes, picture, number, fraction, self.num_classes)
                )
            rois = Instances(target.image_size)
            rois.proposal_boxes = boxes[indices]
            rois.gt_classes = classes[indices]
            rois.is_ground_truth = indices >= num_proposals
            if num_objects:
                _copy_matched_fields(target, matches[indices], rois)
            positive = rois.gt_classes != self.num_classes
            counts.append(torch.stack([positive.sum(), (positive & ~rois.is_ground_truth).sum()]))
            all_rois.append(rois)
        self._log_samples(counts, sum(len(rois) for rois in all_rois), stage)
        return all_rois

    def _log_samples(self, counts: list[torch.Tensor], num_rois: int, stage: int) -> None:
        """Log Detectron2's means over the pictures, and that of positives that were proposed.

        Args:
            counts: of each picture: its positive RoIs, and those that are no ground-truth box.
            num_rois: of all pictures.
        """
        pictures = len(counts)
        num_positive, num_proposed = torch.stack(counts).sum(dim=0).tolist()
        scope = f"stage{stage}/roi_head" if stage else "roi_head"
        storage = get_event_storage()
        storage.put_scalar(f"{scope}/num_fg_samples", num_positive / pictures)
        storage.put_scalar(f"{scope}/num_bg_samples", (num_rois - num_positive) / pictures)
        storage.put_scalar(f"{scope}/num_fg_proposals", num_proposed / pictures)

    def _run_stage(
        self,
        features: list[torch.Tensor],
        proposals: list[Instances],
        stage: int,
        is_graphed: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits (R, K + 1) and deltas (R, 4) of a stage, for all pictures' RoIs."""
        boxes = [x.proposal_boxes for x in proposals]
        if is_graphed:
            pooled = pool_every_level(self.box_pooler, features, boxes)
        else:
            pooled = self.box_pooler(features, boxes)
        if self.training and self.average_gradient:
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        hidden = self.box_head[stage](pooled)
        # In bfloat16, with three digits, many scores would be equal.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.box_predictor[stage](hidden.float())

    @torch.no_grad()
    def _refine(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        rois: list[Instances],
        stage: int,
        limits: torch.Tensor | None = None,
    ) -> list[Instances]:
        """The proposals of the next stage: a stage's boxes, clipped to the picture.

        Args:
            limits: of the pictures, as :func:`box_limits` gives them, where their ``image_size``
                is not known. Shape (N, 4). What is not finite is then no detection later; without
                them it is Detectron2's error.
        """
        refined = []
        boxes_of_images = self.box_predictor[stage].predict_boxes(predictions, rois)
        for picture, (boxes, rois_of_image) in enumerate(zip(boxes_of_images, rois, strict=True)):
            proposals = Instances(rois_of_image.image_size)
            if self.training:
                # What is not finite is so in the losses too, and is reported with them.
                boxes = boxes.nan_to_num()
            if limits is None:
                proposals.proposal_boxes = Boxes(boxes)
                proposals.proposal_boxes.clip(rois_of_image.image_size)
            else:
                proposals.proposal_boxes = Boxes(clip_boxes(boxes, limits[picture]))
            if self.training and self.resample:
                # Those that came from the ground truth are left out: the next stage adds it anew.
                proposals = proposals[~rois_of_image.is_ground_truth]
            elif self.training:
                proposals = proposals[proposals.proposal_boxes.nonempty()]
            refined.append(proposals)
        return refined

    def _mask_losses(
        self, features: dict[str, torch.Tensor], rois: list[Instances], mask_head: nn.Module
    ) -> dict[str, torch.Tensor]:
        positives, _ = select_foreground_proposals(rois, self.num_classes)
        number = sum(len(x) for x in positives)
        if number == 0 and self.mask_pooler is not None:
            # A RoI without weight: Detectron2's Conv2d refuses an empty batch with SyncBatchNorm,
            # for whose statistics the other processes wait.
            first = next((i for i, x in enumerate(rois) if len(x)), 0)
            some = [x[: int(i == first)] for i, x in enumerate(rois)]
            with statistics_left_alone(mask_head):
                logits = mask_head.layers(self._pool_masks(features, some, "proposal_boxes"))
            losses = {"loss_mask": logits.sum() * 0}
        else:
            losses = mask_head(self._pool_masks(features, positives, "proposal_boxes"), positives)
        if self.sync_loss_normalizer:
            share = share_of_mean(number, next(iter(losses.values())).device)
            losses = {name: loss * share for name, loss in losses.items()}
        return losses

    def _pool_masks(
        self, features: dict[str, torch.Tensor], instances: list[Instances], boxes: str
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """What a mask head takes: pooled features or, for one without a pooler, whole ones."""
        features = {name: features[name] for name in self.mask_in_features}
        if self.mask_pooler is None:
            return features
        return self.mask_pooler(list(features.values()), [x.get(boxes) for x in instances])

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> list[Instances]:
        """Detections without masks; called at inference only."""
        features = [features[name] for name in self.box_in_features]
        sizes = [x.image_size for x in proposals]
        if self._is_graphed(features[0]):
            given = [x.proposal_boxes.tensor for x in proposals]
            limits = box_limits(sizes, features[0].device)
            padded = pad_rows(given, self.max_proposals)
            modules = [self.box_head, self.box_predictor]
            boxes, scores = self.graphed(
                self._run_padded_stages, modules, padded, limits, *features
            )
            boxes = [x[: len(y)] for x, y in zip(boxes, given, strict=True)]
            scores = [x[: len(y)] for x, y in zip(scores, given, strict=True)]
        else:
            boxes, scores = self._run_stages(features, proposals)
        last = self.box_predictor[-1]
        thresholds = last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image
        if torch.jit.is_tracing():
            return fast_rcnn_inference(boxes, scores, sizes, *thresholds)[0]
        return [
            find_detections(*of_picture, *thresholds)
            for of_picture in zip(boxes, scores, sizes, strict=True)
        ]

    def _is_graphed(self, feature: torch.Tensor) -> bool:
        return self.graphed is not None and self.graphed.applies_to(feature)

    def _run_padded_stages(
        self, boxes: torch.Tensor, limits: torch.Tensor, *features: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """:meth:`_run_stages` of proposals of shape (N, R, 4), in pictures of these ``limits``."""
        proposals = [Instances((0, 0), proposal_boxes=Boxes(x)) for x in boxes]
        return self._run_stages(list(features), proposals, limits)

    def _run_stages(
        self,
        features: list[torch.Tensor],
        proposals: list[Instances],
        limits: torch.Tensor | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of each picture, the last stage's boxes (R, 4) and the fused scores (R, K + 1).

        Args:
            limits: see :meth:`_refine`; without them, the pictures' ``image_size``.
        """
        logits, probs = [], []
        for stage, predictor in enumerate(self.box_predictor):
            predictions = self._run_stage(features, proposals, stage, limits is not None)
            logits.append(predictions[0])
            probs.append(torch.cat(predictor.predict_probs(predictions, proposals)))
            if stage < self.num_cascade_stages - 1:
                proposals = self._refine(predictions, proposals, stage, limits)
        if self.score_fusion == "logits":
            mean = torch.stack(logits).mean(dim=0)
            scores = predictor.predict_probs((mean, predictions[1]), proposals)
        else:
            mean = sum(probs) * (1.0 / len(probs))
            scores = mean.split([len(x) for x in proposals])
        return list(predictor.predict_boxes(predictions, proposals)), list(scores)

    def _forward_mask(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Add ``pred_masks``, probabilities of shape (N, 1, side, side); at inference only."""
        if not self.mask_on:
            return instances
        if self._has_padded_masks(features):
            topk = self.box_predictor[-1].test_topk_per_image
            multiple = topk if topk > 0 else 100
            boxes = pad_rows([x.pred_boxes.tensor for x in instances], multiple)
            classes = pad_rows([x.pred_classes for x in instances], multiple)
            used = [features[name] for name in self.mask_in_features]
            modules = [self.mask_head]
            masks = self.graphed(self._predict_padded_masks, modules, boxes, classes, *used)
            masks = [x[: len(y)].clone() for x, y in zip(masks, instances, strict=True)]
        elif self.has_mask_head_per_stage:
            pooled = self._pool_masks(features, instances, "pred_boxes")
            classes = torch.cat([x.pred_classes for x in instances])
            masks = self._average_masks(pooled, classes).split([len(x) for x in instances])
        else:
            return super()._forward_mask(features, instances)
        for x, of_picture in zip(instances, masks, strict=True):
            x.pred_masks = of_picture
        return instances

    def _has_padded_masks(self, features: dict[str, torch.Tensor]) -> bool:
        is_known = type(self.mask_head).forward is BaseMaskRCNNHead.forward  # reads classes only
        return (
            self.mask_pooler is not None
            and (is_known or self.has_mask_head_per_stage)
            and self._is_graphed(features[self.mask_in_features[0]])
        )

    def _predict_padded_masks(
        self, boxes: torch.Tensor, classes: torch.Tensor, *features: torch.Tensor
    ) -> torch.Tensor:
        """Probabilities (N, R, 1, side, side) for boxes (N, R, 4) of classes (N, R)."""
        pooled = pool_every_level(self.mask_pooler, features, [Boxes(x) for x in boxes])
        if self.has_mask_head_per_stage:
            masks = self._average_masks(pooled, classes.flatten())
        else:
            instances = Instances((0, 0), pred_classes=classes.flatten())
            masks = self.mask_head(pooled, [instances])[0].pred_masks
        return masks.unflatten(0, classes.shape)

    def _average_masks(
        self, pooled: torch.Tensor | dict[str, torch.Tensor], classes: torch.Tensor
    ) -> torch.Tensor:
        """The stages' mean probabilities (R, 1, side, side) of R boxes, of classes (R,)."""
        logits = torch.stack([head.layers(pooled) for head in self.mask_head])
        probs = logits.sigmoid().mean(dim=0)
        if probs.shape[1] > 1:
            # Not len(): a trace would fix it.
            probs = probs[torch.arange(probs.shape[0], device=classes.device), classes][:, None]
        return probs


def _copy_matched_fields(target: Instances, matches: torch.Tensor, rois: Instances) -> None:
    """Give each RoI the ``gt_*`` fields of its object, ``target[match]``."""
    for name, value in target.get_fields().items():
        if name == "gt_masks":
            rois.gt_masks = MatchedMasks(value, matches)
        elif name.startswith("gt_") and not rois.has(name):
            rois.set(name, value[matches])
