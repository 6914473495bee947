"""Record what mmdetection computes, for tests/parity; the result is tests/fixtures/mmdetection.npz.

In an environment of its own, with nothing to compile:

    pip install torch==2.4.1 torchvision==0.19.1 mmdet==3.3.0 mmcv-lite==2.1.0 mmengine==0.10.7
    PYTHONPATH=. python tests/tools/record_mmdetection.py tests/fixtures/mmdetection.npz

mmcv's compiled operators are not built: NMS is torchvision's, which has the same rule, and RoIAlign
is mmcv's own option ``use_torchvision``. Norms are BN where the recipe has SyncBN, which on one
process is the same. The samplers take everything, so that nothing is drawn at random.

``NAME_step`` says that only every step-th row along the first axis of NAME was kept.
"""

import importlib.machinery
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torchvision

from tests.tools import reference_inputs as inputs
from tests.tools.seeded_checkpoint import seeded_state


def stand_in_for_compiled_operators() -> None:
    """Let mmcv-lite import; only ``nms`` can be called."""
    module = types.ModuleType("mmcv._ext")
    module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    module.nms = lambda boxes, scores, iou_threshold, offset: torchvision.ops.nms(
        boxes, scores, iou_threshold
    )

    def missing(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: sys.exit(f"mmcv._ext.{name} is not there")

    module.__getattr__ = missing
    sys.modules["mmcv._ext"] = module


stand_in_for_compiled_operators()
import mmdet  # noqa: E402
import mmdet.structures.mask.structures as mask_structures  # noqa: E402
from mmdet.models.roi_heads.cascade_roi_head import merge_aug_masks  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.bbox import bbox2roi  # noqa: E402
from mmdet.structures.mask import BitmapMasks, PolygonMasks  # noqa: E402
from mmdet.structures.mask.mask_target import mask_target_single  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

mask_structures.roi_align = lambda masks, rois, size, scale, ratio, mode, aligned: (
    torchvision.ops.roi_align(masks, rois, size, scale, ratio, aligned)
)
TAKE_ALL = 10**7
STAGES = range(3)


def build_model() -> torch.nn.Module:
    """The original's recipe (mmdetection's configs/resnest, with its tiny-VOC changes)."""
    norm = {"type": "BN"}
    stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])

    def coder(target_stds):
        return {
            "type": "DeltaXYWHBBoxCoder",
            "target_means": [0.0] * 4,
            "target_stds": target_stds,
        }

    def extractor(size):
        align = {
            "type": "RoIAlign",
            "output_size": size,
            "sampling_ratio": 0,
            "use_torchvision": True,
        }
        return {
            "type": "SingleRoIExtractor",
            "roi_layer": align,
            "out_channels": 256,
            "featmap_strides": [4, 8, 16, 32],
        }

    def box_head(target_stds):
        return {
            "type": "Shared4Conv1FCBBoxHead",
            "in_channels": 256,
            "conv_out_channels": 256,
            "fc_out_channels": 1024,
            "norm_cfg": norm,
            "roi_feat_size": 7,
            "num_classes": inputs.NUM_CLASSES,
            "bbox_coder": coder(target_stds),
            "reg_class_agnostic": True,
            "loss_cls": {"type": "CrossEntropyLoss"},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0},
        }

    mask_head = {
        "type": "FCNMaskHead",
        "num_convs": 4,
        "in_channels": 256,
        "conv_out_channels": 256,
        "num_classes": inputs.NUM_CLASSES,
        "norm_cfg": norm,
        "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
    }

    def assigner(positive, negative, lowest, low_quality):
        return {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": positive,
            "neg_iou_thr": negative,
            "min_pos_iou": lowest,
            "match_low_quality": low_quality,
            "ignore_iof_thr": -1,
        }

    def sampler(number, fraction, add_gt):
        return {
            "type": "RandomSampler",
            "num": number,
            "pos_fraction": fraction,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": add_gt,
        }

    def proposal_config(number):
        return {
            "nms_pre": number,
            "max_per_img": number,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        }

    stage_configs = [
        {
            "assigner": assigner(iou, iou, iou, False),
            "sampler": sampler(512, 0.25, True),
            "mask_size": 28,
            "pos_weight": -1,
            "debug": False,
        }
        for iou in (0.5, 0.6, 0.7)
    ]
    config = {
        "type": "CascadeRCNN",
        "backbone": {
            "type": "ResNeSt",
            "stem_channels": 64,
            "depth": 50,
            "radix": 2,
            "reduction_factor": 4,
            "avg_down_stride": True,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "frozen_stages": 1,
            "norm_cfg": norm,
            "norm_eval": False,
            "style": "pytorch",
        },
        "neck": {
            "type": "FPN",
            "in_channels": [256, 512, 1024, 2048],
            "out_channels": 256,
            "num_outs": 5,
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 256,
            "feat_channels": 256,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": coder([1.0] * 4),
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9},
        },
        "roi_head": {
            "type": "CascadeRoIHead",
            "num_stages": 3,
            "stage_loss_weights": [1, 0.5, 0.25],
            "bbox_roi_extractor": extractor(7),
            "bbox_head": [box_head(s) for s in stds],
            "mask_roi_extractor": extractor(14),
            "mask_head": mask_head,
        },
        "train_cfg": {
            "rpn": {
                "assigner": assigner(0.7, 0.3, 0.3, True),
                "sampler": sampler(TAKE_ALL, 0.5, False),
                "allowed_border": 0,
                "pos_weight": -1,
                "debug": False,
            },
            "rpn_proposal": proposal_config(2000),
            "rcnn": stage_configs,
        },
        "test_cfg": {
            "rpn": proposal_config(1000),
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 100,
                "mask_thr_binary": 0.5,
            },
        },
    }
    register_all_modules(init_default_scope=True)
    return MODELS.build(ConfigDict(config))


class Recorder:
    """Collects arrays under the names of the comparison."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, name: str, value, step: int = 1) -> None:
        """Keep every ``step``-th row of ``value``; float64 becomes float32."""
        array = np.asarray(value.detach() if torch.is_tensor(value) else value)
        if step > 1:
            array = array[::step]
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if name in self.arrays:
            sys.exit(f"{name} was recorded twice")
        self.arrays[name] = np.ascontiguousarray(array)
        if step > 1:
            self.arrays[f"{name}_step"] = np.int64(step)


def data_sample(index: int, padded: tuple[int, int] | None = None) -> DetDataSample:
    original_h, original_w, height, width, padded_h, padded_w = inputs.sizes(index)
    return DetDataSample(
        metainfo={
            "img_shape": (height, width),
            "ori_shape": (original_h, original_w),
            "pad_shape": (padded_h, padded_w),
            "batch_input_shape": padded or (padded_h, padded_w),
            "scale_factor": (width / original_w, height / original_h),
        }
    )


@torch.no_grad()
def record_inference(model, recorder: Recorder, index: int) -> None:
    prefix = f"img{index}_"

    def add(name, value, step=1):
        recorder.add(prefix + name, value, step)

    x = torch.from_numpy(inputs.network_input(index))
    sample = data_sample(index)
    add("sizes", np.array(inputs.sizes(index), dtype=np.int32))
    features = model.backbone(x)
    for level, feature in zip("2345", features, strict=True):
        add(f"C{level}", feature[0], 64)
    pyramid = model.neck(features)
    for level, feature in zip("23456", pyramid, strict=True):
        add(f"P{level}", feature[0], 64)
    logits, deltas = model.rpn_head(pyramid)
    for level in range(5):
        add(f"rpn_cls{level}", logits[level][0])
        add(f"rpn_reg{level}", deltas[level][0], 3)
    (proposals,) = model.rpn_head.predict_by_feat(
        logits, deltas, batch_img_metas=[sample.metainfo], rescale=False
    )
    add("prop_boxes", proposals.bboxes)
    add("prop_scores", proposals.scores)

    head = model.roi_head
    fixed = torch.from_numpy(inputs.boxes(index))
    rois = bbox2roi([fixed])
    add("fixed_boxes", fixed)
    add("fixed_roi7", head.bbox_roi_extractor[0](pyramid[:4], rois)[:, ::64])
    probabilities = []
    for stage in STAGES:
        result = head._bbox_forward(stage, pyramid, rois)
        add(f"fixed_cls_s{stage}", result["cls_score"])
        add(f"fixed_reg_s{stage}", result["bbox_pred"])
        decoded = head.bbox_head[stage].regress_by_class(
            fixed, None, result["bbox_pred"], sample.metainfo
        )
        add(f"fixed_dec_s{stage}", decoded)
        mask_logits = head._mask_forward(stage, pyramid, rois)["mask_preds"]
        add(f"fixed_mask_s{stage}", mask_logits[:2, ::5])
        probabilities.append(mask_logits.sigmoid())
    add("fixed_mask_prob", merge_aug_masks(probabilities, sample.metainfo)[:2, ::5])

    boxes = proposals.bboxes
    for stage in STAGES:
        result = head._bbox_forward(stage, pyramid, bbox2roi([boxes]))
        boxes = head.bbox_head[stage].regress_by_class(
            boxes, None, result["bbox_pred"], sample.metainfo
        )
        add(f"casc_boxes_s{stage}", boxes, 8)
        add(f"casc_cls_s{stage}", result["cls_score"], 8)

    for name, rescale in (("det", False), ("det_ori", True)):
        found = model.predict(x, [data_sample(index)], rescale=rescale)[0].pred_instances
        add(f"{name}_boxes", found.bboxes)
        runs = [_run_lengths(mask) for mask in found.masks.numpy()]
        add(f"{name}_mask_rle", np.concatenate(runs).astype(np.int32))
        add(f"{name}_mask_ptr", np.cumsum([0, *map(len, runs)]).astype(np.int32))
        if not rescale:
            add("det_scores", found.scores)
            add("det_labels", found.labels.int())
    print(f"picture {index}: {len(proposals)} proposals, {len(found)} detections")


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """COCO's uncompressed counts: column by column, the first run outside."""
    flat = mask.T.reshape(-1)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    runs = np.diff(bounds)
    return np.concatenate([[0], runs]) if flat[0] else runs


def record_training(model, recorder: Recorder, state: dict) -> None:
    samples, proposals, pictures = [], [], []
    padded = [inputs.sizes(index)[4:] for index in range(inputs.NUM_PICTURES)]
    height, width = (max(values) for values in zip(*padded, strict=True))
    for index in range(inputs.NUM_PICTURES):
        polygons, boxes, classes = inputs.objects(index)
        recorder.add(f"tr_gt{index}_boxes", boxes)
        recorder.add(f"tr_gt{index}_labels", classes.astype(np.int32))
        parts = [part for polygon in polygons for part in polygon]
        recorder.add(f"tr_gt{index}_poly", np.concatenate(parts))
        owners = [(k, len(part)) for k, polygon in enumerate(polygons) for part in polygon]
        recorder.add(f"tr_gt{index}_poly_parts", np.array(owners, dtype=np.int32))
        recorder.add(f"tr_props{index}", inputs.proposals(index))
        sample = data_sample(index, (height, width))
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(classes),
            masks=PolygonMasks(polygons, height, width),
        )
        samples.append(sample)
        proposals.append(torch.from_numpy(inputs.proposals(index)))
        x = torch.from_numpy(inputs.network_input(index))
        pad = (0, width - x.shape[3], 0, height - x.shape[2])
        pictures.append(torch.nn.functional.pad(x, pad))
    recorder.add("tr_shape", np.array([height, width], dtype=np.int32))

    # The body on its running statistics: split attention's norm sees one value a channel and
    # picture, which makes a step in training mode ill-conditioned.
    model.load_state_dict(state)
    model.train()
    model.backbone.eval()
    metas = [sample.metainfo for sample in samples]
    # RPNHead.loss_and_predict sets all classes to 0.
    objects = [
        InstanceData(bboxes=s.gt_instances.bboxes, labels=torch.zeros_like(s.gt_instances.labels))
        for s in samples
    ]
    pyramid = model.extract_feat(torch.cat(pictures))
    logits, deltas = model.rpn_head(pyramid)
    losses = model.rpn_head.loss_by_feat(logits, deltas, objects, metas)
    record_anchor_targets(model.rpn_head, recorder, logits, objects, metas)

    head = model.roi_head
    calls: dict[str, list] = {"box": [], "mask": [], "sampling": []}
    box_loss, mask_loss = head.bbox_loss, head.mask_loss

    def recording_box_loss(stage, features, sampling):
        calls["box"].append(box_loss(stage, features, sampling))
        calls["sampling"].append(sampling)
        return calls["box"][-1]

    def recording_mask_loss(stage, features, sampling, gt_instances):
        calls["mask"].append(mask_loss(stage, features, sampling, gt_instances))
        return calls["mask"][-1]

    head.bbox_loss, head.mask_loss = recording_box_loss, recording_mask_loss
    losses.update(head.loss(pyramid, [InstanceData(bboxes=p.clone()) for p in proposals], samples))
    for stage in STAGES:
        record_stage(recorder, stage, *(calls[key][stage] for key in ("box", "mask", "sampling")))
        bitmaps = [
            mask_target_single(
                sampling.pos_priors,
                sampling.pos_assigned_gt_inds,
                BitmapMasks(sample.gt_instances.masks.to_ndarray(), height, width),
                head.train_cfg[stage],
            )
            for sampling, sample in zip(calls["sampling"][stage], samples, strict=True)
        ]
        recorder.add(f"tr_s{stage}_mask_targets_bitmap", torch.cat(bitmaps).to(torch.uint8))

    names = [name for name in losses if "loss" in name]
    values = [
        sum(v.sum() for v in losses[name])
        if isinstance(losses[name], (list, tuple))
        else losses[name].sum()
        for name in names
    ]
    sum(values).backward()
    recorder.add("tr_loss_names", np.array(names))
    recorder.add("tre_loss_values", torch.stack(values))
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    recorder.add("tr_grad_names", np.array([name for name, _ in trainable]))
    recorder.add("tre_grad_norms", np.array([p.grad.double().norm().item() for _, p in trainable]))
    print("losses", {name: round(v.item(), 4) for name, v in zip(names, values, strict=True)})


def record_anchor_targets(rpn_head, recorder: Recorder, logits, objects, metas) -> None:
    anchors, valid = rpn_head.get_anchors([tuple(x.shape[-2:]) for x in logits], metas, "cpu")
    labels, weights, targets, _, number = rpn_head.get_targets(anchors, valid, objects, metas)
    labels, weights, targets = (torch.cat(x, dim=1) for x in (labels, weights, targets))
    for index in range(len(metas)):
        counts = weights[index] > 0
        positive = ((labels[index] == 0) & counts).nonzero()[:, 0]
        recorder.add(f"tr_rpn{index}_pos", positive.int())
        recorder.add(f"tr_rpn{index}_pos_targets", targets[index][positive])
        recorder.add(f"tr_rpn{index}_label_bits", np.packbits(counts.numpy()))
    recorder.add("tr_rpn_avg_factor", np.int64(number))


def record_stage(recorder: Recorder, stage: int, box, mask, sampling) -> None:
    labels, _, targets, weights = box["bbox_targets"]
    box_losses, mask_losses = box["loss_bbox"], mask["loss_mask"]
    losses = [box_losses["loss_cls"], box_losses["loss_bbox"], mask_losses["loss_mask"]]
    values = {
        "rois": box["rois"],
        "n_pos_neg": np.array([[len(x.pos_inds), len(x.neg_inds)] for x in sampling], np.int32),
        "pos_gt": torch.cat([x.pos_assigned_gt_inds for x in sampling]).int(),
        "cls": box["cls_score"],
        "reg": box["bbox_pred"],
        "labels": labels.int(),
        "bbox_targets": targets,
        "bbox_weights": weights,
        "mask_rois": bbox2roi([x.pos_priors for x in sampling]),
        "mask_targets": mask["mask_targets"].to(torch.uint8),
        # Of classes, boxes and masks, without the stage's weight. The mask head's logits would be
        # a third of the file; the whole step's losses cover them.
        "loss": torch.stack([value.sum() for value in losses]),
    }
    for name, value in values.items():
        recorder.add(f"tr_s{stage}_{name}", value)
    print(f"stage {stage}: positives and negatives {values['n_pos_neg'].tolist()}")


def main() -> None:
    output = Path(sys.argv[1])
    torch.set_num_threads(2)
    model = build_model()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = {n: torch.from_numpy(v) for n, v in seeded_state(shapes, inputs.SEED).items()}
    model.load_state_dict(state)
    model.eval()
    recorder = Recorder()
    recorder.add("versions", np.array([f"mmdet {mmdet.__version__}", f"torch {torch.__version__}"]))
    for index in range(inputs.NUM_PICTURES):
        record_inference(model, recorder, index)
    record_training(model, recorder, state)
    np.savez_compressed(output, **recorder.arrays)
    print(f"{output}: {len(recorder.arrays)} arrays, {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
