"""What a recipe states in epochs."""

import pytest

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
