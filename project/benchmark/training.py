"""A step of training of a recipe's whole model, beside Detectron2's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from project.benchmark.model import (
    DTYPES,
    OURS_BF16,
    STOCK_FP16,
    ModelBenchmark,
    build_models,
    in_words,
    shares_of_hardware,
    side_of,
    timed,
)
from project.benchmark.timing import OURS, STOCK, exact_float32, synchronize
from project.data.mapper import build_mapper
from project.engine import Trainer
from project.errors import UserError
from project.seeding import seed_generators

# Relative. Rounding may also exchange two proposals, and with them a RoI that is drawn.
MAX_LOSS_DIFFERENCE, MAX_GRADIENT_DIFFERENCE = 1e-3, 1e-2


def benchmark_training(
    cfg: CfgNode, records: Sequence[Mapping], rounds: int, trace: Path | None = None
) -> ModelBenchmark:
    """Forward, backward and the optimizer's step on one batch; weights are seeded.

    Args:
        trace: write a Chrome trace of one step of this project there.

    Raises:
        UserError: numbers of RoIs, losses or gradients differ, with float32 on both sides.
    """
    cfg, models = build_models(cfg)
    cfg.SOLVER.BASE_LR = 1e-8  # the weights stay what they are
    mapper = build_mapper(cfg, is_train=True)
    seed_generators(0)
    batch = [mapper(record) for record in records]
    build = {STOCK: build_optimizer, OURS: Trainer.build_optimizer}
    optimizers = {name: build[name](cfg, model.train()) for name, model in models.items()}
    facts: dict[str, tuple[float, float, tuple]] = {}
    device = models[STOCK].device
    names = [STOCK, OURS, OURS_BF16, *([STOCK_FP16] if device.type == "cuda" else [])]

    def program(name: str) -> Callable[[], None]:
        side = side_of(name)
        model, optimizer, dtype = models[side], optimizers[side], DTYPES[name]
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

    programs = {name: program(name) for name in names}
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
    result = timed(in_words(batch), agreement, programs, models, rounds, trace)
    if device.type == "cuda":
        memory = {
            name: _peak_memory(run, models[side_of(name)], optimizers)
            for name, run in programs.items()
        }
        result = replace(result, memory=memory)
    with FlopCounterMode(display=False) as counter:
        programs[OURS]()
    flop = counter.get_total_flops() // 2  # it counts a multiply-add as two
    return replace(result, flop=flop, shares=shares_of_hardware(flop, result.seconds, device))


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
