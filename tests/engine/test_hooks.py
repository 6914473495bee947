"""What hooks do where training does not go as it should."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from project.engine.hooks import BestModelHook, EvalHook, PreciseBN, StopTraining
from project.engine.run_record import RunRecordHook

NAN = float("nan")


class StandIn(SimpleNamespace):
    """A trainer that is asked about its iteration, and told to save."""

    def __init__(self, max_iter: int):
        self.best: list[tuple[int, float]] = []
        checkpointer = SimpleNamespace(
            save_best=lambda **content: self.best.append((content["iteration"], content["value"]))
        )
        super().__init__(iter=0, max_iter=max_iter, checkpointer=checkpointer, save=lambda _: None)

    @property
    def last_iteration(self) -> int:
        return min(self.iter, self.max_iter - 1)


def best_model_hook(metric: str = "segm/AP", dataset: str = "val", **options) -> BestModelHook:
    options = {"key": metric, "period": 1, **options}
    return BestModelHook(metric, dataset, EvalHook(1, dict), **options)


def look(hook: BestModelHook, values: list[float], metric: str = "segm/AP") -> StandIn:
    """Let an iteration be over for each of the values; there would be more."""
    hook.trainer = trainer = StandIn(max_iter=100)
    for iteration, value in enumerate(values):
        trainer.iter = iteration
        with EventStorage() as storage:
            trainer.storage = storage
            storage.put_scalar(metric, value)
            hook.after_step()
    return trainer


@pytest.mark.parametrize(("done", "evaluations"), [(2, 0), (3, 1)])
def test_after_a_failure_in_the_last_iteration_there_is_no_evaluation(done, evaluations):
    counts = []
    hook = EvalHook(0, lambda: counts.append(1))
    hook.trainer = SimpleNamespace(iter=done, max_iter=3)
    hook.after_train()
    assert len(counts) == evaluations


def test_a_run_that_goes_on_compares_with_its_best_model():
    before, after = best_model_hook(patience=3), best_model_hook(patience=3)
    look(before, [35.0, 20.0])
    after.load_state_dict(before.state_dict())
    assert look(after, [34.0]).best == []
    with pytest.raises(StopTraining):
        look(after, [33.0])


def test_a_further_test_set_makes_no_other_metric():
    before, after = best_model_hook(), best_model_hook(key="val/segm/AP")
    look(before, [35.0])
    after.load_state_dict(before.state_dict())
    assert look(after, [34.0], "val/segm/AP").best == []
    assert look(after, [36.0], "val/segm/AP").best == [(0, 36.0)]


@pytest.mark.parametrize("changed", [("bbox/AP75", "val"), ("segm/AP", "test")])
def test_the_best_by_another_metric_or_set_is_not_compared_with(changed, caplog):
    before, after = best_model_hook(), best_model_hook(*changed, patience=1)
    look(before, [35.0])
    with caplog.at_level(logging.WARNING, logger="project"):
        after.load_state_dict(before.state_dict())
    assert "segm/AP of val; now " + " of ".join(changed) in caplog.text
    assert look(after, [20.0], changed[0]).best == [(0, 20.0)]


def test_an_iteration_is_kept_once_though_a_finished_run_is_resumed():
    hook = best_model_hook(keep=2)
    look(hook, [30.0, 35.0])
    hook.trainer.max_iter, hook.trainer.iter = 2, 3  # as Detectron2 counts then
    with EventStorage() as hook.trainer.storage:
        hook.trainer.storage.put_scalar("segm/AP", 35.0)
        hook.after_train()
    assert hook.kept_iterations == [1, 0]


def test_a_metric_that_is_never_defined_does_not_stop_training(caplog):
    with caplog.at_level(logging.WARNING, logger="project"):
        trainer = look(best_model_hook(patience=1), [NAN, NAN, NAN])
    assert trainer.best == [] and "segm/AP is not defined" in caplog.text


def test_the_speed_of_a_run_is_that_of_its_iterations(tmp_path):
    settings = {"config": "", "batch_size": 4, "device": "cpu", "dtype": torch.float32}
    hook = RunRecordHook(str(tmp_path), **settings, versions={})
    hook.trainer = SimpleNamespace(start_iter=10, iter=20, max_iter=20)
    hook.before_train()
    with EventStorage() as hook.trainer.storage:
        for _ in range(7):
            hook.trainer.storage.put_scalar("time", 0.5)  # evaluations are none of it
    hook.after_train()
    assert json.loads((tmp_path / "run.json").read_text())["images_per_second"] == 8


def test_what_feeds_precise_statistics_ends_with_them():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    hook = PreciseBN(1, model, lambda seed: [torch.full((2, 1, 2, 2), 3.0)] * 3, 2)
    hook.trainer = SimpleNamespace(seed=0)
    hook.before_train()
    with EventStorage():
        hook.update_stats()
    assert model[0].running_mean.item() == 3 and hook._data_iter is None
