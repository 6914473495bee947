"""Training hooks that Detectron2 lacks, or has in a way that can lose work."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from timm.utils import ModelEmaV3
from torch.utils.data import DataLoader

from project.data.loading import STOP_SIGNALS

logger = logging.getLogger(__name__)


class StopTraining(SystemExit):
    """Ends training in good order; its code is the program's exit code, 0 for an early stop."""


class TimedWriter(hooks.PeriodicWriter):
    """Detectron2's ``PeriodicWriter`` that also writes after ``seconds`` without a line.

    On a CPU 20 iterations can take minutes, and silence looks like a hang.
    """

    def __init__(self, writers: list[EventWriter], period: int = 20, seconds: float = 10.0):
        super().__init__(writers, period)
        self._seconds = seconds
        self._last_write = 0.0

    def before_train(self) -> None:
        self._last_write = time.monotonic()

    def after_step(self) -> None:
        now = time.monotonic()
        done = self.trainer.iter + 1
        if (
            done % self._period == 0
            or done == self.trainer.max_iter
            or now - self._last_write >= self._seconds
        ):
            self._last_write = now
            for writer in self._writers:
                writer.write()


class CheckpointHook(HookBase):
    """Saves after the last iteration and whenever one of ``periods`` (0: never) is over."""

    def __init__(self, periods: Sequence[int]):
        self._periods = [period for period in periods if period > 0]

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self._periods):
            self.trainer.save(checkpoint_name(self.trainer))


def checkpoint_name(trainer) -> str:
    """The name of the checkpoint of the iteration that was just done."""
    is_last = trainer.iter + 1 >= trainer.max_iter
    return "model_final" if is_last else f"model_{trainer.iter:07d}"


class EvalHook(hooks.EvalHook):
    """Detectron2's, which evaluates after the last iteration also where that one has failed.

    Other processes, which know of no failure, would wait for it in vain.
    """

    def evaluate(self) -> None:
        """Put what is found into the event storage."""
        self._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class BestModelHook(HookBase):
    """Keeps the best model as ``best.pth``, and stops when nothing gets better any more.

    Goes behind the ``EvalHook``. What it knows is part of the checkpoint, which it saves once more
    after an evaluation. A run that was interrupted between the two begins with that evaluation.

    Args:
        metric: such as "segm/AP"; larger is better.
        dataset_name: that it is of.
        evaluation: what evaluates.
        key: of the metric in the event storage.
        period: that of ``evaluation``.
        patience: evaluations without a better value after which training stops; 0 for never.
        keep: so many of the best periodic checkpoints stay.
    """

    def __init__(
        self,
        metric: str,
        dataset_name: str,
        evaluation: EvalHook,
        *,
        key: str,
        period: int,
        patience: int = 0,
        keep: int = 0,
    ):
        self._metric = metric
        self._key = key
        self._evaluation = evaluation
        self._period = period
        self._patience = patience
        self._keep = keep
        self._compared = [metric, dataset_name]
        self._state: dict = {
            **{"value": -math.inf, "iteration": -1},  # of the best model
            "looked": -1,  # the iteration after which there was an evaluation last
            "without": 0,  # evaluations since the best one
            "kept": [],  # iterations and values of the best ones, the best first
        }

    def state_dict(self) -> dict:
        return {**self._state, "compared": self._compared}

    def load_state_dict(self, state_dict: dict) -> None:
        state = dict(state_dict)
        before = state.pop("compared", self._compared)
        if before == self._compared:
            self._state.update(state)
        else:
            logger.warning(
                f"The best model was that by {' of '.join(before)}; now"
                f" {' of '.join(self._compared)} is compared, from the next evaluation on"
            )

    @property
    def kept_iterations(self) -> list[int]:
        """The iterations, from 0, whose checkpoints stay."""
        return [iteration for iteration, _ in self._state["kept"]]

    def before_train(self) -> None:
        done = self.trainer.start_iter
        if done and self._is_evaluated(done) and self._state["looked"] != done - 1:
            with _just_done(self.trainer):
                self._evaluation.evaluate()
                self._look()
            self._stop_if_nothing_gets_better()

    def after_step(self) -> None:
        if self._is_evaluated(self.trainer.iter + 1):
            self._look()
            self._stop_if_nothing_gets_better()

    def _is_evaluated(self, done: int) -> bool:
        """Whether there is an evaluation after so many iterations, before the last one."""
        return self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter

    def after_train(self) -> None:
        # The evaluation of the last iteration is done there, if training came so far.
        if self.trainer.iter >= self.trainer.max_iter:
            self._look()  # nothing is left to stop

    def _look(self) -> None:
        """Compare the evaluation that was just done."""
        # The main process alone has the metrics.
        newest = self.trainer.storage.latest().get(self._key, (math.nan, 0))[0]
        value, iteration = comm.all_gather(newest)[0], self.trainer.last_iteration
        self._state["looked"] = iteration
        if math.isnan(value):
            logger.warning(f"{self._metric} is not defined on this test set: no model is the best")
        else:
            # A run that had finished and is resumed comes by its last evaluation again.
            kept = [item for item in self._state["kept"] if item[0] != iteration]
            kept = sorted([*kept, (iteration, value)], key=lambda item: -item[1])
            self._state["kept"] = kept[: self._keep]
        if value > self._state["value"]:
            self._state.update(value=value, iteration=iteration, without=0)
            self.trainer.checkpointer.save_best(
                value=value, metric=self._metric, iteration=iteration
            )
            logger.info(f"Best so far: {self._metric} {value:.3f}, saved as best.pth")
        elif self._state["iteration"] >= 0:
            self._state["without"] += 1
        self.trainer.save(checkpoint_name(self.trainer))

    def _stop_if_nothing_gets_better(self) -> None:
        if self._patience and self._state["without"] >= self._patience:
            logger.info(
                f"Stopping: no better {self._metric} in {self._state['without']} evaluations; the"
                f" best, {self._state['value']:.3f}, is that of iteration"
                f" {self._state['iteration'] + 1} (best.pth)"
            )
            raise StopTraining(0)


@contextmanager
def _just_done(trainer) -> Iterator[None]:
    """Inside, a run that goes on has just done the iteration before."""
    trainer.iter, trainer.storage.iter = trainer.iter - 1, trainer.storage.iter - 1
    try:
        yield
    finally:
        trainer.iter, trainer.storage.iter = trainer.iter + 1, trainer.storage.iter + 1


class EMAHook(HookBase):
    """Moves timm's moving average of the weights after each iteration."""

    def __init__(self, ema: ModelEmaV3, model: torch.nn.Module):
        self._ema = ema
        self._model = model

    def after_step(self) -> None:
        self._ema.update(self._model, step=self.trainer.iter + 1)


class PreciseBN(hooks.PreciseBN):
    """Detectron2's, with the same result in a resumed run: it begins with the same pictures.

    Args:
        build_loader: called with ``seed``, the trainer's, when training begins.
        period, model, num_iter: see Detectron2's.
    """

    def __init__(
        self,
        period: int,
        model: torch.nn.Module,
        build_loader: Callable[..., DataLoader],
        num_iter: int,
    ):
        super().__init__(period, model, None, num_iter)
        self._build_loader = build_loader

    def before_train(self) -> None:
        # Not before: a resumed run has read its seed by now.
        self._data_loader = self._build_loader(seed=self.trainer.seed)
        self._build_loader = None  # which has all records

    def update_stats(self) -> None:
        try:
            super().update_stats()
        finally:
            self._data_iter = None  # its workers end with it; the next time begins anew


class SignalHook(HookBase):
    """On SIGTERM, SIGINT (Ctrl-C), SIGUSR1 or SIGHUP: finish the iteration, save, say so, exit.

    Clusters announce with SIGTERM or SIGUSR1 that they will take the machine away; SIGHUP is a
    terminal that was closed, which after nohup ends nothing. A second signal ends the program at
    once, unless it comes with the first: a terminal sends Ctrl-C to every process, and what watches
    them passes it on. Goes last, for its word to be the last.
    """

    TOGETHER_SECONDS = 3.0

    def __init__(self):
        self._received = 0
        self._received_at = 0.0
        self._farewell = ""
        self._previous: dict[int, object] = {}

    def before_train(self) -> None:
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._receive)

    def after_train(self) -> None:
        self._restore()
        if self._farewell:
            logger.warning(self._farewell)

    def _receive(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._received and now - self._received_at > self.TOGETHER_SECONDS:
            self._restore()
            signal.raise_signal(number)
        elif not self._received:
            self._received, self._received_at = number, now
            logger.warning(
                f"{signal.Signals(number).name}: stopping after this iteration (again: at once)"
            )

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def after_step(self) -> None:
        received = max(comm.all_gather(self._received))
        if not received:
            return
        name = checkpoint_name(self.trainer)
        self.trainer.save(name)
        self._farewell = (
            f"Stopped by {signal.Signals(received).name} after iteration {self.trainer.iter + 1};"
            f" {name}.pth is saved: go on with --resume"
        )
        raise StopTraining(128 + received)
