"""Detection with a recipe's whole model, to masks as RLE, beside Detectron2's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from torch import nn

from project.analysis.cost import count_cost
from project.benchmark.model import (
    OURS_BF16,
    ModelBenchmark,
    build_models,
    has_graphs,
    in_words,
    shares_of_hardware,
    side_of,
    timed,
)
from project.benchmark.timing import OURS, STOCK, exact_float32
from project.data.categories import Categories
from project.data.mapper import build_mapper
from project.data.segmentation import mask_ious
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from project.evaluation.detections import to_detections

# Rounding may change the order of detections of nearly equal scores.
MIN_FOUND = 0.98


def benchmark_inference(
    cfg: CfgNode, records: Sequence[Mapping], rounds: int, trace: Path | None = None
) -> ModelBenchmark:
    """From the tensors of pictures to detections whose masks are RLE of the whole picture.

    Weights are seeded; with a score threshold of 0 each side gives as many detections as it may.

    Args:
        records: of the pictures, which go through the model in one batch.
        trace: write a Chrome trace of one call of this project there.

    Raises:
        UserError: proposals or detections differ, with float32 on both sides.
    """
    cfg, models, categories = build_detectors(cfg)
    mapper = build_mapper(cfg, is_train=False)
    batch = [mapper(record) for record in records]
    proposals: dict[str, int] = {}
    hooks = [
        model.proposal_generator.register_forward_hook(
            lambda _, __, output, name=name: proposals.update({name: sum(map(len, output[0]))})
        )
        for name, model in models.items()
    ]
    programs = detection_programs(models, lambda: batch, categories)
    with exact_float32():
        capture_graphs(programs, models)
        results = {name: programs[name]() for name in (STOCK, OURS)}
    for hook in hooks:
        hook.remove()
    if has_graphs(models[OURS]):
        models[OURS].graphed.clear()  # those without TF32 would take memory for nothing
    capture_graphs(programs, models)
    found = share_found(results[STOCK], results[OURS])
    counts = {name: len(result) for name, result in results.items()}
    if proposals[STOCK] != proposals[OURS] or len(set(counts.values())) > 1 or found < MIN_FOUND:
        raise UserError(
            f"infer: proposals {proposals}, detections {counts}, of which {found:.0%} agree"
        )
    agreement = (
        f"{proposals[OURS]} proposals and {counts[OURS]} detections each; in float32 {found:.0%} of"
        " them agree (class, score within 1e-4, box within 0.02 pixels, IoU of masks 0.99)"
    )
    result = timed(in_words(batch), agreement, programs, models, rounds, trace)
    models[OURS].inference_dtype = "float32"
    padded = [max(x["image"].shape[axis] for x in batch) for axis in (1, 2)]
    flop = count_cost(models[OURS], tuple(padded)).total.flop * len(batch)
    shares = shares_of_hardware(flop, result.seconds, models[OURS].device)
    return replace(result, flop=flop, shares=shares)


def build_detectors(cfg: CfgNode) -> tuple[CfgNode, dict[str, nn.Module], Categories]:
    """What :func:`build_models` gives, ready to detect, and names for the classes."""
    cfg, models = build_models(cfg)
    for predictor in models[STOCK].roi_heads.box_predictor:
        # Class scores of an untrained model are all alike.
        nn.init.normal_(predictor.cls_score.weight, std=0.1)
    models[OURS].load_state_dict(models[STOCK].state_dict())
    for model in models.values():
        model.eval()
    ids = range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    return cfg, models, Categories(tuple(ids), tuple(map(str, ids)))


def detection_programs(
    models: Mapping[str, nn.Module], read: Callable[[], list[dict]], categories: Categories
) -> dict[str, Callable[[], list[dict]]]:
    """What each side does with the pictures of ``read``, to COCO results with masks as RLE."""

    def program(name: str) -> Callable[[], list[dict]]:
        model = models[side_of(name)]

        @torch.no_grad()
        def run() -> list[dict]:
            if name != STOCK:
                model.inference_dtype = "bfloat16" if name == OURS_BF16 else "float32"
            found = [output["instances"].to("cpu") for output in model(read())]
            results = []
            for number, instances in enumerate(found):
                if name == STOCK:
                    results += instances_to_coco_json(instances, number)
                else:
                    results += to_coco_results(to_detections(instances, categories), number)
            return results

        return run

    return {name: program(name) for name in (STOCK, OURS, OURS_BF16)}


def capture_graphs(
    programs: Mapping[str, Callable[[], object]], models: Mapping[str, nn.Module]
) -> None:
    """Call every program twice in a row, where there are CUDA graphs: from then on it replays."""
    if any(map(has_graphs, models.values())):
        for run in programs.values():
            run()
            run()


def share_found(expected: Sequence[Mapping], detections: Sequence[Mapping]) -> float:
    """Which share of ``expected`` is among ``detections``."""
    if not expected or not detections:
        return float(len(expected) == len(detections))
    masks = [[item["segmentation"] for item in items] for items in (expected, detections)]
    same_masks = mask_ious(*masks) >= 0.99
    classes, scores, boxes = (
        [np.array([item[key] for item in items]) for items in (expected, detections)]
        for key in ("category_id", "score", "bbox")
    )
    pictures = [np.array([item["image_id"] for item in items]) for items in (expected, detections)]
    same_classes = classes[0][:, None] == classes[1]
    same_classes &= pictures[0][:, None] == pictures[1]
    near = np.abs(scores[0][:, None] - scores[1]) <= 1e-4
    near &= np.abs(boxes[0][:, None] - boxes[1]).max(axis=-1) <= 0.02
    return float((same_classes & near & same_masks).any(axis=1).mean())
