"""What a recipe states in epochs."""

import pytest
import torch
from detectron2.solver import build_lr_scheduler

from project.config import load_config
from project.schedule import in_iterations
from tests.helpers import FULL_CONFIG, SMALL_CONFIG


def load(*opts: str, file=FULL_CONFIG):
    return load_config(str(file), opts, default_config=str(FULL_CONFIG))


def schedule(cfg) -> tuple:
    solver = cfg.SOLVER
    return solver.MAX_ITER, tuple(solver.STEPS), solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD


def test_the_original_recipe_has_its_iterations():
    """mmdetection rounds each of the 24 epochs up: 675 iterations, and steps after 16 and 22."""
    assert schedule(in_iterations(load(), 1349)) == (16200, (10800, 14850), 1350, 1350)


@pytest.mark.parametrize(("pictures", "batch", "per_epoch"), [(8, 4, 2), (9, 4, 3), (3, 4, 1)])
def test_an_epoch_is_every_picture_once(pictures, batch, per_epoch):
    cfg = in_iterations(load("SOLVER.IMS_PER_BATCH", str(batch)), pictures)
    steps = (16 * per_epoch, 22 * per_epoch)
    assert schedule(cfg) == (24 * per_epoch, steps, 2 * per_epoch, 2 * per_epoch)


def test_iterations_on_the_command_line_count_more_than_epochs_in_a_file():
    cfg = in_iterations(load("SOLVER.MAX_ITER", "50", "SOLVER.STEPS", "(40,)"), 1349)
    assert schedule(cfg) == (50, (40,), 1350, 1350)


def test_without_epochs_nothing_changes():
    cfg = load(file=SMALL_CONFIG)
    assert in_iterations(cfg, 7) == cfg


def test_a_step_after_the_last_iteration_is_none():
    cfg = in_iterations(load("SOLVER.MAX_EPOCH", "16"), 40)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (320, (440,))  # Detectron2 leaves this out
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    assert build_lr_scheduler(cfg, optimizer).get_last_lr()[0] > 0


@pytest.mark.parametrize(
    ("name", "iterations", "warmup", "said"),
    [
        ("WarmupCosineLR", 576, 500, "4%"),
        ("WarmupCosineLR", 576, 200, None),
        ("WarmupMultiStepLR", 480, 500, "1%"),
        ("WarmupMultiStepLR", 16200, 500, None),
    ],
)
def test_a_warmup_that_does_not_reach_the_learning_rate_is_said(
    caplog, name, iterations, warmup, said
):
    steps = str((iterations * 2 // 3, iterations * 11 // 12))
    pairs = ["SOLVER.MAX_ITER", str(iterations), "SOLVER.STEPS", steps]
    cfg = load("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.WARMUP_ITERS", str(warmup), *pairs)
    with caplog.at_level("WARNING"):
        cfg = in_iterations(cfg, 40)
    assert (f"reaches {said} of SOLVER.BASE_LR" in caplog.text) == (said is not None)
    scheduler = build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=1))
    rates = []
    for _ in range(iterations):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.step()
    assert (max(rates) < 0.5) == (said is not None)
