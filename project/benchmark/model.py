"""A recipe's whole model beside Detectron2's: what its benchmarks have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import nn
from torch.profiler import profile

from project.benchmark.timing import (
    OURS,
    STOCK,
    Spread,
    matrix_product_speed,
    ratio,
    spreads,
    synchronize,
    take_turns,
)
from project.meta_arch.rcnn import ExtendedRCNN
from project.seeding import seed_generators

OURS_BF16 = f"{OURS}, bfloat16"
STOCK_FP16 = f"{STOCK}, float16"  # its SOLVER.AMP, which it has on GPUs only
DTYPES = {
    STOCK: torch.float32,
    OURS: torch.float32,
    OURS_BF16: torch.bfloat16,
    STOCK_FP16: torch.float16,
}
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
    *("MODEL.ROI_MASK_HEAD.THRESH_TEST", 0.5),
)
STOCK_PARTS = (
    *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
)
OWN_PARTS = (
    *("MODEL.META_ARCHITECTURE", "ExtendedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "ExtendedRPN"),
    *("MODEL.ROI_HEADS.NAME", "ExtendedCascadeROIHeads"),
)
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


def in_words(batch: Sequence[Mapping]) -> str:
    sizes = ", ".join("{} x {}".format(*x["image"].shape[1:]) for x in batch)
    return f"a batch of {len(batch)}: {sizes}"


def shares_of_hardware(
    flop: int, seconds: Mapping[str, Spread], device: torch.device
) -> dict[str, float]:
    """Of each program, ``flop`` multiply-adds by its time, as :attr:`ModelBenchmark.shares`."""
    peaks = {
        dtype: matrix_product_speed(dtype, device) for dtype in {DTYPES[name] for name in seconds}
    }
    return {name: flop / s.median / peaks[DTYPES[name]] for name, s in seconds.items()}


def side_of(program: str) -> str:
    """Whose model a program runs."""
    return STOCK if program in (STOCK, STOCK_FP16) else OURS


def config_of(cfg: CfgNode, side: str) -> CfgNode:
    """A copy of the recipe with Detectron2's computation, and its or this project's parts."""
    cfg = cfg.clone()
    cfg.merge_from_list([*STOCK_COMPUTATION, *(STOCK_PARTS if side == STOCK else OWN_PARTS)])
    return cfg


def build_models(cfg: CfgNode) -> tuple[CfgNode, dict[str, nn.Module]]:
    """The recipe with Detectron2's computation; its model of stock and of own parts, alike."""
    cfg = config_of(cfg, OURS)
    seed_generators(0)
    models = {STOCK: build_model(config_of(cfg, STOCK)), OURS: build_model(cfg)}
    models[OURS].load_state_dict(models[STOCK].state_dict())
    return cfg, models


def timed(
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
    parts = {name: _parts(models[side_of(name)], run) for name, run in programs.items()}
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
        "RoIAlign": [*heads.box_pooler.level_poolers, *heads.mask_pooler.level_poolers],
        "box heads": [*heads.box_head, *heads.box_predictor],
        "mask head": [heads.mask_head],
        "whole model": [model],
    }
    seconds = dict.fromkeys(modules, 0.0)
    hooks = []
    for name, members in modules.items():
        for member in members:
            hooks += _stopwatch(member, name, seconds)
    if has_graphs(model):
        model.graphed.clear()  # which call no modules
    run()
    for hook in hooks:
        hook.remove()
    seconds["FPN"] -= seconds["body"]
    whole = seconds.pop("whole model")
    return {**seconds, "the rest of forward": whole - sum(seconds.values())}


def has_graphs(model: nn.Module) -> bool:
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
