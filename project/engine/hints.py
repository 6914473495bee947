"""One-line hints at what looks wrong while a model trains."""

import copy
import logging
import math
import os
from collections.abc import Sequence

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from project.engine.progress import share_of_waiting
from project.evaluation.evaluator import EMPTY_MASKS

logger = logging.getLogger(__name__)

# Losses whose targets stay the same, and which fall while a model learns. Those of the cascade's
# boxes and classes, and so the total, rise for hundreds of iterations of a good run: the better the
# boxes, the more RoIs are positive.
STEADY_LOSSES = ("loss_rpn_", "loss_mask")
GUESSED_LOSS = "loss_rpn_cls"  # ln 2 before anything is learnt
PROPOSALS = "roi_head/num_fg_proposals"
MISSED_PIXELS = "mask_rcnn/false_negative"  # of each mask head, whose stage may stand before it


class HintHook(HookBase):
    """Looks at the event storage now and then, and says in a line what is wrong and what to change.

    Runs are judged by windows of a fiftieth of their iterations, or 50 if that is more:

    - learning rate: when training begins, see :func:`hint_at_learning_rate`;
    - data: waiting for it took more than a fifth of a window's time;
    - RoIs: in a window after warm-up hardly any was positive, but the ground truth's own boxes;
    - loss: see :func:`hint_at_loss`, for all windows after warm-up;
    - masks: in the third window after warm-up or later, the mask heads missed nearly all pixels of
      the objects that they trained on; or then the masks of an evaluation had none.

    Each kind comes once a run; a resumed run remembers. Goes behind the ``EvalHook``, on all
    processes, of which the main one speaks.

    Args:
        base_lr: ``SOLVER.BASE_LR``.
        batch_size: pictures in an iteration, of all processes.
        warmup: iterations of it.
        num_workers: ``DATALOADER.NUM_WORKERS``.
        period: iterations between two looks.
    """

    def __init__(
        self, *, base_lr: float, batch_size: int, warmup: int, num_workers: int, period: int = 20
    ):
        self._base_lr = base_lr
        self._batch_size = batch_size
        self._warmup = warmup
        self._num_workers = num_workers
        self._period = period
        # "losses": the steady ones of each window after warm-up, NaN where it was not seen.
        self._state: dict = {"given": [], "window": 0, "losses": [], "began_untrained": False}

    def state_dict(self) -> dict:
        return copy.deepcopy(self._state)

    def load_state_dict(self, state_dict: dict) -> None:
        self._state.update(copy.deepcopy(state_dict))

    def before_train(self) -> None:
        # A resumed run keeps its windows, also where it has another number of iterations now.
        self._state["window"] = self._state["window"] or max(50, self.trainer.max_iter // 50)
        self._give("learning rate", hint_at_learning_rate(self._base_lr, self._batch_size))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and comm.is_main_process():
            self._look(done)

    def after_train(self) -> None:
        # The evaluation of the last iteration is done there, if training came so far.
        if self.trainer.iter >= self.trainer.max_iter and comm.is_main_process():
            self._look(self.trainer.max_iter)

    def _look(self, done: int) -> None:
        """Give the hints that there are after ``done`` iterations."""
        storage, window = self.trainer.storage, self._state["window"]
        self._remember_losses(done)
        losses, untrained = self._state["losses"], self._state["began_untrained"]
        self._give("loss", hint_at_loss(losses, untrained, self._base_lr))
        learnt = self._warmup + 3 * window
        empty, evaluated = storage.latest().get(EMPTY_MASKS, (0.0, 0))
        if evaluated >= learnt:
            self._give("masks", hint_at_empty_masks(empty))
        if done - self.trainer.start_iter < window:
            return
        self._give("data", hint_at_data(share_of_waiting(storage, window), self._num_workers))
        if done >= self._warmup + window and PROPOSALS in storage.histories():
            self._give("RoIs", hint_at_rois(np.mean(_values(storage, PROPOSALS, done - window))))
        if done >= learnt:
            self._give("masks", hint_at_missed_pixels(_missed_pixels(storage, done - window)))

    def _remember_losses(self, done: int) -> None:
        """Add the windows that are over since the last look."""
        storage, window, losses = self.trainer.storage, self._state["window"], self._state["losses"]
        if done == self._period and GUESSED_LOSS in storage.histories():
            first = storage.history(GUESSED_LOSS).median(done)
            self._state["began_untrained"] = bool(first > math.log(2) / 2)
        while (stop := self._warmup + (len(losses) + 1) * window) <= done:
            losses.append(_steady_loss(storage, stop - window, stop))

    def _give(self, kind: str, hint: str) -> None:
        if hint and kind not in self._state["given"] and comm.is_main_process():
            self._state["given"].append(kind)
            logger.warning(f"Hint: {hint}")


def hint_at_learning_rate(base_lr: float, batch_size: int) -> str:
    """For a rate that is ten times as high or low as the linear rule's (Goyal et al. 2017).

    That is from Detectron2's recipes: 0.02 for 16 pictures; mmdetection's 0.0025 for 2 is the same.
    Batch norm in the heads bears several times as much.
    """
    usual = 0.02 / 16 * batch_size
    if 1 / 10 <= base_lr / usual <= 10:
        return ""
    likely = "losses may rise or become NaN" if base_lr > usual else "training may take very long"
    return (
        f"SOLVER.BASE_LR {base_lr:.3g} with SOLVER.IMS_PER_BATCH {batch_size} is"
        f" {base_lr / usual:.3g} times the usual ({usual:.3g}; 0.02 for 16): {likely}"
    )


def hint_at_data(share: float, num_workers: int) -> str:
    """For a share of waiting for data of more than a fifth."""
    if share <= 0.2:
        return ""
    return (
        f"{share:.0%} of the time is spent waiting for data: raise DATALOADER.NUM_WORKERS"
        f" ({num_workers}; this machine has {os.cpu_count()} cores), or lower the pictures' size:"
        " INPUT.LSJ.SIZE or, without LSJ, INPUT.MIN_SIZE_TRAIN"
    )


def hint_at_rois(proposals: float) -> str:
    """For less than a tenth of a positive proposal in a picture; good runs have more than one."""
    if proposals >= 0.1:
        return ""
    return (
        f"no positive RoIs: {proposals:.2g} of RPN's boxes in a picture match an object, so nothing"
        " is learnt of boxes: compare MODEL.ANCHOR_GENERATOR.SIZES with the objects"
        " (scripts/analyze_model.py --anchors), or lower SOLVER.BASE_LR"
    )


def hint_at_loss(losses: Sequence[float], began_untrained: bool, base_lr: float) -> str:
    """For losses of RPN and masks that do not fall, or rise.

    Flat: the newest is hardly lower than the first, that of the highest learning rate. So this is
    not the end of a schedule, where nothing falls any more; nor is it a model that was a detector
    before. Rising: the newest is 1.3 times the lowest. Medians of windows vary by some 3 %.

    Args:
        losses: their medians in each window after warm-up, or NaN.
        began_untrained: whether the first iterations' losses were those of guessing.
    """
    if len(losses) < 3:
        return ""
    first, newest = losses[0], losses[-1]
    lowest = min((loss for loss in losses if not math.isnan(loss)), default=math.nan)
    if newest > 1.3 * lowest:
        return (
            f"the losses of RPN and masks rise ({lowest:.3g} before, {newest:.3g} now): lower"
            f" SOLVER.BASE_LR ({base_lr:.3g})"
        )
    if began_untrained and newest > 0.95 * first:
        return (
            f"the losses of RPN and masks have not fallen since the warm-up ({first:.3g} then,"
            f" {newest:.3g} now): SOLVER.BASE_LR ({base_lr:.3g}) is too low or far too high, or the"
            " annotations do not fit the pictures (scripts/show_dataset.py)"
        )
    return ""


def hint_at_missed_pixels(share: float) -> str:
    """For mask heads that take nearly all pixels of the objects for background."""
    if not share > 0.95:
        return ""
    return (
        f"masks are empty: {share:.0%} of the objects' pixels are missed: look at their annotations"
        " (scripts/show_dataset.py), or try another SOLVER.BASE_LR"
    )


def hint_at_empty_masks(share: float) -> str:
    """For detections whose masks have nearly all no pixel."""
    if not share > 0.95:
        return ""
    return (
        f"{share:.0%} of the most certain detections have an empty mask: if loss_mask falls all the"
        " same, the statistics of MODEL.ROI_MASK_HEAD.NORM do not fit: set TEST.PRECISE_BN.ENABLED"
    )


def _values(storage: EventStorage, name: str, start: int, stop: float = math.inf) -> list[float]:
    """Of the iterations from ``start`` on, before ``stop``; the last first."""
    values = []
    for value, iteration in reversed(storage.histories()[name].values()):
        if iteration < start:
            break
        if iteration < stop:
            values.append(value)
    return values


def _steady_loss(storage: EventStorage, start: int, stop: int) -> float:
    """The sum of the medians of :data:`STEADY_LOSSES`; NaN if half of them was not seen."""
    names = [name for name in storage.histories() if name.startswith(STEADY_LOSSES)]
    values = [_values(storage, name, start, stop) for name in names]
    if min(map(len, values), default=0) < (stop - start) / 2:
        return math.nan
    return float(sum(map(np.median, values)))


def _missed_pixels(storage: EventStorage, start: int) -> float:
    """Mean share of the objects' pixels that the best mask head missed; 0 without any."""
    names = [name for name in storage.histories() if name.endswith(MISSED_PIXELS)]
    return min((float(np.mean(_values(storage, name, start))) for name in names), default=0.0)
