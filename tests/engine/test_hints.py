"""Hints: none in a good run, one for each fault, and none that comes twice."""

import copy
import logging
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from project.config import load_config
from project.engine import Trainer
from project.engine.hints import HintHook, hint_at_learning_rate
from project.evaluation.evaluator import EMPTY_MASKS
from project.recipes import list_recipes
from tests.helpers import load_small_config

Series = dict[str, Callable[[int], float]]
WARMUP, MAX_ITER = 50, 800
WINDOW = 50  # of such a run


def knots(*points: tuple[float, float]) -> Callable[[int], float]:
    """A scalar that goes from point to point, each an iteration and a value, in straight lines."""
    iterations, values = zip(*points, strict=True)
    return lambda iteration: float(np.interp(iteration, iterations, values))


def always(value: float) -> Callable[[int], float]:
    return lambda iteration: value


# As in a run of the small recipe that reached a mask AP50 of 58; then nothing falls any more.
GOOD: Series = {
    "total_loss": knots((0, 9), (39, 3.6), (59, 4.1), (139, 6.1), (239, 5.8), (439, 3.6)),
    "loss_cls_stage2": knots((0, 2), (59, 0.32), (179, 1.35), (439, 0.5)),
    "loss_mask": knots((0, 0.69), (59, 0.67), (119, 0.4), (199, 0.3), (439, 0.26)),
    "loss_rpn_cls": knots((0, 0.69), (39, 0.56), (79, 0.19), (139, 0.07), (439, 0.035)),
    "loss_rpn_loc": knots((0, 0.07), (119, 0.06), (439, 0.03)),
    "roi_head/num_fg_proposals": knots((0, 1), (59, 6), (99, 13)),
    "mask_rcnn/false_negative": knots((0, 0.9), (39, 1), (59, 0.8), (99, 0.2), (439, 0.1)),
    "time": always(0.4),
    "data_time": always(0.01),
}
UNTRAINED: Series = {
    "loss_mask": always(0.69),
    "loss_rpn_cls": knots((0, 0.69), (50, 0.3), (60, 0.3)),
    "loss_rpn_loc": always(0.07),
}


def new_hook(**kwargs) -> HintHook:
    usual = {"base_lr": 0.02, "batch_size": 4, "warmup": WARMUP, "num_workers": 3}
    return HintHook(**{**usual, **kwargs})


def train(
    hook: HintHook, series: Series, start: int = 0, stop: int = MAX_ITER, max_iter: int = MAX_ITER
) -> EventStorage:
    """Go through iterations whose scalars are those of ``series``, with noise of 15 %."""
    random = np.random.RandomState(0)
    with EventStorage(start) as storage:
        hook.trainer = SimpleNamespace(
            iter=start, start_iter=start, max_iter=max_iter, storage=storage
        )
        hook.before_train()
        for iteration in range(start, stop):
            hook.trainer.iter = storage.iter = iteration
            for name, scalar in series.items():
                storage.put_scalar(name, scalar(iteration) * random.normal(1, 0.15))
            hook.after_step()
        hook.trainer.iter = storage.iter = stop
        hook.after_train()
    return storage


def hints(caplog) -> list[str]:
    """Those since the last call."""
    said = [x.getMessage() for x in caplog.records if x.name == "project.engine.hints"]
    caplog.clear()
    return said


@pytest.fixture(autouse=True)
def log(caplog):
    with caplog.at_level(logging.INFO, logger="project"):
        yield


@pytest.mark.parametrize("max_iter", [120, 440, MAX_ITER, 5000])
def test_a_good_run_has_none(caplog, max_iter):
    train(new_hook(), GOOD, stop=max_iter, max_iter=max_iter)
    assert hints(caplog) == []


@pytest.mark.parametrize(
    ("fault", "earliest", "words"),
    [
        (UNTRAINED, WARMUP + 3 * WINDOW, ["have not fallen", "SOLVER.BASE_LR (0.02)"]),
        (
            {"loss_rpn_cls": knots((199, 0.05), (300, 0.6))},
            WARMUP + 3 * WINDOW,
            ["losses of RPN and masks rise", "lower SOLVER.BASE_LR (0.02)"],
        ),
        (
            {"roi_head/num_fg_proposals": always(0.01)},
            WARMUP + WINDOW,
            ["no positive RoIs", "MODEL.ANCHOR_GENERATOR.SIZES"],
        ),
        (
            {"data_time": always(0.1)},
            WINDOW,
            ["of the time is spent waiting for data", "DATALOADER.NUM_WORKERS (3"],
        ),
        (
            {"mask_rcnn/false_negative": always(1.0)},
            WARMUP + 3 * WINDOW,
            ["masks are empty", "SOLVER.BASE_LR"],
        ),
    ],
    ids=["flat", "rising", "rois", "data", "masks"],
)
def test_each_fault_has_one_line_that_names_a_key(caplog, fault, earliest, words):
    train(new_hook(), {**GOOD, **fault}, stop=earliest - 1)
    assert hints(caplog) == []
    train(new_hook(), {**GOOD, **fault})
    (line,) = hints(caplog)
    assert all(word in line for word in words) and "\n" not in line
    # It comes early enough to save most of the run.
    train(new_hook(), {**GOOD, **fault}, stop=MAX_ITER // 2)
    assert len(hints(caplog)) == 1


def test_with_a_mask_head_for_each_stage_all_must_miss(caplog):
    heads = {f"stage{n}/mask_rcnn/false_negative": always(0.99) for n in range(3)}
    series = {**GOOD, **heads}
    del series["mask_rcnn/false_negative"]
    train(new_hook(), series)
    assert len(hints(caplog)) == 1
    train(new_hook(), {**series, "stage1/mask_rcnn/false_negative": always(0.3)})
    assert hints(caplog) == []


@pytest.mark.parametrize(
    ("iteration", "share", "expected"), [(60, 1.0, 0), (400, 1.0, 1), (400, 0.9, 0)]
)
def test_empty_masks_of_an_evaluation(caplog, iteration, share, expected):
    hook = new_hook()
    storage = train(hook, GOOD, stop=iteration)
    storage.put_scalar(EMPTY_MASKS, share, smoothing_hint=False)
    hook.trainer.max_iter = iteration  # so that this was the last evaluation
    hook.after_train()
    said = hints(caplog)
    assert len(said) == expected and all("TEST.PRECISE_BN.ENABLED" in line for line in said)


def test_a_resumed_run_goes_on_with_its_windows_and_says_nothing_twice(caplog):
    flat = {**GOOD, **UNTRAINED, "data_time": always(0.2)}
    first = new_hook()
    train(first, flat, stop=160)
    assert len(hints(caplog)) == 1  # the data
    state = copy.deepcopy(first.state_dict())
    resumed = new_hook()
    resumed.load_state_dict(state)
    train(resumed, flat, start=160, stop=300, max_iter=10 * MAX_ITER)
    (line,) = hints(caplog)
    assert "have not fallen" in line and resumed.state_dict()["window"] == WINDOW
    third = new_hook()
    third.load_state_dict(resumed.state_dict())
    train(third, flat, start=400)
    assert hints(caplog) == [] and first.state_dict() == state


def test_where_flat_is_normal_there_is_no_hint(caplog):
    detector = {
        "loss_mask": always(0.3),
        "loss_rpn_cls": always(0.05),
        "loss_rpn_loc": always(0.03),
    }
    train(new_hook(), {**GOOD, **detector})  # fine-tuned
    # The checkpoint that this run goes on from knows of no windows.
    train(new_hook(), {**GOOD, **UNTRAINED}, start=300)
    assert hints(caplog) == []


def test_a_window_of_which_little_was_seen_does_not_count(caplog):
    hook = new_hook()
    train(hook, GOOD, stop=200)
    resumed = new_hook()
    resumed.load_state_dict(hook.state_dict())
    train(resumed, GOOD, start=240)
    losses = resumed.state_dict()["losses"]
    assert [n for n, loss in enumerate(losses) if math.isnan(loss)] == [3]
    assert len(losses) == (MAX_ITER - WARMUP) // WINDOW and hints(caplog) == []


@pytest.mark.parametrize("path", list_recipes(), ids=lambda path: path.stem)
def test_the_rates_of_all_recipes_are_usual(path):
    solver = load_config(str(path)).SOLVER
    assert hint_at_learning_rate(solver.BASE_LR, solver.IMS_PER_BATCH) == ""


@pytest.mark.parametrize(
    ("rate", "batch_size", "times"), [(0.02, 1, "16"), (0.0025, 16, ""), (2e-4, 16, "0.01")]
)
def test_the_learning_rate_is_compared_for_the_batch_size(rate, batch_size, times):
    hint = hint_at_learning_rate(rate, batch_size)
    assert bool(hint) == bool(times)
    assert f"is {times} times" in hint or not times


def test_other_processes_are_silent(caplog, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    hook = new_hook(base_lr=9.0)
    train(hook, {})  # they have no scalars
    assert hints(caplog) == []


def test_in_a_run_a_hint_is_logged_and_not_again_after_resuming(small_opts, caplog):
    opts = [*small_opts, "DATASETS.TEST", "()", "SOLVER.WARMUP_FACTOR", "1e-6"]
    for iterations in (1, 2):
        cfg = load_small_config(
            [*opts, "SOLVER.BASE_LR", "0.5", "SOLVER.MAX_ITER", str(iterations)]
        )
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=iterations == 2)
        trainer.train()
        assert len(hints(caplog)) == (iterations == 1)
    state = read_checkpoint(newest_checkpoint(cfg.OUTPUT_DIR))["trainer"]["hooks"]["HintHook"]
    assert state["given"] == ["learning rate"]
