"""Inference and training steps of a recipe's whole model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from pycocotools import mask as coco_mask
from tabulate import tabulate
from torch import nn
from torch.profiler import profile

from project.analysis.cost import count_cost
from project.benchmark.timing import (
    OURS,
    STOCK,
    Spread,
    exact_float32,
    matrix_product_speed,
    ratio,
    spreads,
    synchronize,
    take_turns,
)
from project.data.categories import Categories
from project.data.mapper import build_mapper
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from project.evaluation.detections import to_detections
from project.meta_arch.rcnn import ExtendedRCNN
from project.seeding import seed_generators

OURS_BF16 = f"{OURS}, bfloat16"
STOCK_FP16 = f"{STOCK}, float16"  # its SOLVER.AMP, which it has on GPUs only
# What a recipe may compute otherwise than Detectron2 (docs/parity.md), as Detectron2 does.
STOCK_COMPUTATION = (
    *("MODEL.DELTA_CLAMP", "upper", "MODEL.RPN.BOUNDARY_THRESH", -1),
    *("MODEL.RPN.LOW_QUALITY_MIN_IOU", 0.0, "MODEL.RPN.LOW_QUALITY_REASSIGN", False),
    *("MODEL.RPN.LOSS_NORMALIZER", "batch_size"),
    *("MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS", [1.0, 1.0, 1.0]),
    *("MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE", False),
    *("MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION", "probs"),
    *("MODEL.ROI_BOX_CASCADE_HEAD.AVERAGE_GRADIENT", True),
    *("MODEL.ROI_MASK_HEAD.NUM_HEADS", 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
)
STOCK_PARTS = (
    *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
)
# Rounding may change the order of detections of nearly equal scores.
MIN_FOUND = 0.98
# Relative. Rounding may also exchange two proposals, and with them a RoI that is drawn.
MAX_LOSS_DIFFERENCE, MAX_GRADIENT_DIFFERENCE = 1e-3, 1e-2
SECONDS_HEADERS = ("", "seconds", "times as fast")


@dataclass(frozen=True)
class ModelBenchmark:
    """Seconds of one call.

    Attributes:
        what: the call, in words.
        agreement: how near the answers are, in words.
        seconds: of each program.
        ratios: how many times as fast as Detectron2 each other program is.
        parts: of each program, seconds in each part of the model, in forward.
        memory: of each program, the largest memory of the GPU in one call, the model included, in
            GB; empty on a CPU.
        flop: multiply-adds of one call, 0 where they were not counted.
        shares: of each program, multiply-adds a second, as a share of those of a matrix product of
            the same dtype in the same run; empty where they were not counted.
    """

    what: str
    agreement: str
    seconds: dict[str, Spread]
    ratios: dict[str, Spread]
    parts: dict[str, dict[str, float]]
    memory: dict[str, float] = field(default_factory=dict)
    flop: int = 0
    shares: dict[str, float] = field(default_factory=dict)


def report_model(result: ModelBenchmark) -> str:
    """The figures as tables."""
    headers, rows = [*SECONDS_HEADERS], seconds_rows(result.seconds, result.ratios)
    if result.memory:
        headers.append("GB")
        rows = [[*row, f"{result.memory[row[0]]:.2f}"] for row in rows]
    if result.shares:
        headers.append("of a matrix product's speed")
        rows = [[*row, f"{result.shares[row[0]]:.0%}"] for row in rows]
    seconds = tabulate(rows, headers)
    names = next(iter(result.parts.values()))
    rows = [[name, *(parts[name] for parts in result.parts.values())] for name in names]
    parts = tabulate(rows, ["part, seconds in forward", *result.parts], floatfmt=".3f")
    what = result.what + (f", {result.flop / 1e9:.0f} G multiply-adds" if result.flop else "")
    return f"{what}\n{result.agreement}\n\n{seconds}\n\n{parts}"


def seconds_rows(seconds: Mapping[str, Spread], ratios: Mapping[str, Spread]) -> list[list[str]]:
    """A row of each program, under :data:`SECONDS_HEADERS`."""
    return [[name, str(spread), str(ratios.get(name, ""))] for name, spread in seconds.items()]


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
        results = {name: run() for name, run in programs.items()}
    for hook in hooks:
        hook.remove()
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
    result = _timed(_in_words(batch), agreement, programs, models, rounds, trace)
    models[OURS].inference_dtype = "float32"
    padded = [max(x["image"].shape[axis] for x in batch) for axis in (1, 2)]
    flop = count_cost(models[OURS], tuple(padded)).total.flop * len(batch)
    peaks = {
        name: matrix_product_speed(dtype, models[OURS].device)
        for name, dtype in ((STOCK, torch.float32), (OURS_BF16, torch.bfloat16))
    }
    peaks[OURS] = peaks[STOCK]
    shares = {name: flop / s.median / peaks[name] for name, s in result.seconds.items()}
    return replace(result, flop=flop, shares=shares)


def _in_words(batch: Sequence[Mapping]) -> str:
    sizes = ", ".join("{} x {}".format(*x["image"].shape[1:]) for x in batch)
    return f"a batch of {len(batch)}: {sizes}"


def benchmark_training(
    cfg: CfgNode, records: Sequence[Mapping], rounds: int, trace: Path | None = None
) -> ModelBenchmark:
    """Forward, backward and the optimizer's step on one batch; weights are seeded.

    Args:
        trace: write a Chrome trace of one step of this project there.

    Raises:
        UserError: numbers of RoIs, losses or gradients differ, with float32 on both sides.
    """
    cfg, models = _models(cfg)
    cfg.SOLVER.BASE_LR = 1e-8  # the weights stay what they are
    mapper = build_mapper(cfg, is_train=True)
    seed_generators(0)
    batch = [mapper(record) for record in records]
    optimizers = {name: build_optimizer(cfg, model.train()) for name, model in models.items()}
    facts: dict[str, tuple[float, float, tuple]] = {}
    device = models[STOCK].device
    dtypes = {STOCK: torch.float32, OURS: torch.float32, OURS_BF16: torch.bfloat16}
    if device.type == "cuda":
        dtypes[STOCK_FP16] = torch.float16

    def program(name: str) -> Callable[[], None]:
        side = _side_of(name)
        model, optimizer, dtype = models[side], optimizers[side], dtypes[name]
        scaler = torch.GradScaler(device.type, enabled=dtype == torch.float16)

        def run() -> None:
            seed_generators(0)  # the same RoIs on both sides
            optimizer.zero_grad()
            with EventStorage() as storage:
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    loss = sum(model(batch).values())
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
                sampled = [
                    storage.latest()[f"roi_head/num_{kind}_samples"][0] for kind in ("fg", "bg")
                ]
                facts.setdefault(name, (loss.item(), norm.item(), tuple(map(float, sampled))))
            scaler.step(optimizer)
            scaler.update()
            synchronize(device)

        return run

    programs = {name: program(name) for name in dtypes}
    with exact_float32():
        for run in programs.values():
            run()
    (loss, norm, rois), (our_loss, our_norm, our_rois) = facts[STOCK], facts[OURS]
    loss_difference, norm_difference = abs(our_loss / loss - 1), abs(our_norm / norm - 1)
    agrees = loss_difference <= MAX_LOSS_DIFFERENCE and norm_difference <= MAX_GRADIENT_DIFFERENCE
    if rois != our_rois or not agrees:
        raise UserError(f"train: loss, gradient's norm, RoIs differ: {facts}")
    agreement = (
        f"{sum(rois):.0f} RoIs a picture each; in float32 losses differ by {loss_difference:.0e},"
        f" norms of gradients by {norm_difference:.0e}; in bfloat16 by"
        f" {abs(facts[OURS_BF16][0] / loss - 1):.0e} and {abs(facts[OURS_BF16][1] / norm - 1):.0e}"
    )
    result = _timed(_in_words(batch), agreement, programs, models, rounds, trace)
    if device.type == "cuda":
        memory = {
            name: _peak_memory(run, models[_side_of(name)], optimizers)
            for name, run in programs.items()
        }
        result = replace(result, memory=memory)
    return result


def _peak_memory(
    run: Callable[[], object], model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]
) -> float:
    """The GPU's memory in GB that one ``run`` needs at most, without that of the other models."""
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    tensors = [*model.parameters(), *model.buffers()]
    # A momentum for each trained parameter.
    tensors += [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before + own) / 1e9


def _side_of(program: str) -> str:
    """Whose model a program runs."""
    return STOCK if program in (STOCK, STOCK_FP16) else OURS


def build_detectors(cfg: CfgNode) -> tuple[CfgNode, dict[str, nn.Module], Categories]:
    """The config and models of :func:`_models`, ready to detect, and names for their classes."""
    cfg, models = _models(cfg)
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
        model = models[_side_of(name)]

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


def config_of(cfg: CfgNode, side: str) -> CfgNode:
    """A copy of the recipe with Detectron2's computation and, for ``STOCK``, its parts."""
    cfg = cfg.clone()
    cfg.merge_from_list([*STOCK_COMPUTATION, *(STOCK_PARTS if side == STOCK else ())])
    return cfg


def _models(cfg: CfgNode) -> tuple[CfgNode, dict[str, nn.Module]]:
    """The recipe with Detectron2's computation; its model of stock and of own parts, alike."""
    cfg = config_of(cfg, OURS)
    seed_generators(0)
    models = {STOCK: build_model(config_of(cfg, STOCK)), OURS: build_model(cfg)}
    models[OURS].load_state_dict(models[STOCK].state_dict())
    return cfg, models


def _timed(
    what: str,
    agreement: str,
    programs: Mapping[str, Callable[[], object]],
    models: Mapping[str, nn.Module],
    rounds: int,
    trace: Path | None,
) -> ModelBenchmark:
    seconds = take_turns(programs, rounds)
    if trace is not None:
        with profile() as profiler:
            programs[OURS]()
        profiler.export_chrome_trace(str(trace))
    parts = {name: _parts(models[_side_of(name)], run) for name, run in programs.items()}
    return ModelBenchmark(
        what,
        agreement,
        spreads(seconds),
        {name: ratio(seconds, STOCK, name) for name in programs if name != STOCK},
        parts,
    )


def _parts(model: nn.Module, run: Callable[[], object]) -> dict[str, float]:
    """Seconds that one ``run`` spends in ``forward`` of each part of ``model``."""
    heads = model.roi_heads
    modules = {
        "body": [model.backbone.bottom_up],
        "FPN": [model.backbone],
        "RPN": [model.proposal_generator],
        "RoIAlign": [heads.box_pooler, heads.mask_pooler],
        "box heads": [*heads.box_head, *heads.box_predictor],
        "mask head": [heads.mask_head],
        "whole model": [model],
    }
    seconds = dict.fromkeys(modules, 0.0)
    hooks = []
    for name, members in modules.items():
        for member in members:
            hooks += _stopwatch(member, name, seconds)
    if _has_graphs(model):
        model.graphed.clear()  # which call no modules
    run()
    for hook in hooks:
        hook.remove()
    seconds["FPN"] -= seconds["body"]
    whole = seconds.pop("whole model")
    return {**seconds, "the rest of forward": whole - sum(seconds.values())}


def capture_graphs(
    programs: Mapping[str, Callable[[], object]], models: Mapping[str, nn.Module]
) -> None:
    """Call every program twice in a row, where there are CUDA graphs: from then on it replays."""
    if any(map(_has_graphs, models.values())):
        for run in programs.values():
            run()
            run()


def _has_graphs(model: nn.Module) -> bool:
    return isinstance(model, ExtendedRCNN) and model.graphed is not None


def _stopwatch(module: nn.Module, name: str, seconds: dict[str, float]) -> list:
    """Hooks that add the time in ``forward`` to ``seconds[name]``."""
    device = next(module.parameters(), torch.zeros(())).device

    def now() -> float:
        synchronize(device)
        return perf_counter()

    def start(*_) -> None:
        seconds[name] -= now()

    def stop(*_) -> None:
        seconds[name] += now()

    return [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]


def share_found(expected: Sequence[Mapping], detections: Sequence[Mapping]) -> float:
    """Which share of ``expected`` is among ``detections``."""
    if not expected or not detections:
        return float(len(expected) == len(detections))
    masks = [[item["segmentation"] for item in items] for items in (expected, detections)]
    # One by one: in a list, pycocotools takes 255 at most.
    are_empty = [np.array([coco_mask.area(mask) == 0 for mask in items]) for items in masks]
    overlaps = coco_mask.iou(*masks, [0] * len(detections))
    same_masks = (overlaps >= 0.99) | (are_empty[0][:, None] & are_empty[1])
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
