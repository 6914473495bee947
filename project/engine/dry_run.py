"""What a training run would take, from its first few iterations."""

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from project.checkpoint.reading import find_weights
from project.engine.trainer import Trainer
from project.memory import peak_memory_of_device
from project.meta_arch.test_time_augmentation import as_tested

logger = logging.getLogger(__name__)

STEPS = 5
TESTED = 3  # pictures, after one to warm up


@dataclass(frozen=True)
class Forecast:
    """What :func:`dry_run` has measured, and what follows.

    Attributes:
        iterations: of the whole run.
        epochs: passes through the training set that these are.
        seconds: of an iteration, the median.
        data_share: of an iteration that was spent waiting for data.
        seconds_of_a_test: of one picture, at inference; None where nothing is tested.
        tests: pictures to be looked at by all evaluations together.
        memory: the largest so far, in bytes, on the device of the main process.
        memory_of_device: what it has.
        checkpoint: its size, in bytes.
        checkpoints: that are on the disk together.
        disk_free: where ``OUTPUT_DIR`` is, in bytes.
    """

    iterations: int
    epochs: float
    seconds: float
    data_share: float
    seconds_of_a_test: float | None
    tests: int
    memory: int
    memory_of_device: int
    checkpoint: int
    checkpoints: int
    disk_free: int

    def summary(self) -> str:
        """A few lines for the console."""
        training = self.iterations * self.seconds
        testing = self.tests * (self.seconds_of_a_test or 0)
        disk = self.checkpoint * self.checkpoints
        lines = [
            f"time    {_duration(training + testing)}: {self.iterations} iterations"
            f" ({self.epochs:.1f} epochs) of {self.seconds:.3g} s take {_duration(training)},"
            f" evaluation takes {_duration(testing)}; waiting for data {self.data_share:.0%}",
            f"memory  {self.memory / 2**30:.1f} of {self.memory_of_device / 2**30:.1f} GiB, so far;"
            " larger pictures can take more",
            f"disk    {disk / 2**30:.1f} GiB for {self.checkpoints} checkpoints, of"
            f" {self.disk_free / 2**30:.1f} GiB that are free",
        ]
        if disk > self.disk_free:
            lines.append("        too little: lower SOLVER.CHECKPOINT_KEEP.LAST, or free some")
        return "\n".join(lines)


def dry_run(cfg: CfgNode) -> Forecast:
    """Do all that training does up to iteration :data:`STEPS`, and leave nothing behind.

    Called in every process, with the data sets registered.

    Raises:
        UserError, FloatingPointError: as in training.
    """
    output_dir = Path(cfg.OUTPUT_DIR).absolute()
    with rehearsed(cfg) as trainer:
        seconds, data_share = _time_steps(trainer)
        memory, of_device = peak_memory_of_device(cfg.MODEL.DEVICE)
        trainer.checkpointer.save("model")
        written = Path(trainer.cfg.OUTPUT_DIR) / "model.pth"
        size = written.stat().st_size if written.exists() else 0  # by the main process
        seconds_of_a_test, pictures = _time_tests(trainer)
    cfg = trainer.test_cfg
    evaluations = math.ceil(cfg.SOLVER.MAX_ITER / (cfg.TEST.EVAL_PERIOD or cfg.SOLVER.MAX_ITER))
    forecast = Forecast(
        iterations=cfg.SOLVER.MAX_ITER,
        epochs=cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH / len(trainer.records),
        seconds=seconds,
        data_share=data_share,
        seconds_of_a_test=seconds_of_a_test,
        tests=pictures * evaluations,
        memory=memory,
        memory_of_device=of_device,
        checkpoint=size,
        checkpoints=number_of_checkpoints(cfg),
        disk_free=shutil.disk_usage(_existing(output_dir)).free,
    )
    logger.info(f"Nothing was trained. The whole run:\n{forecast.summary()}")
    return forecast


@contextmanager
def rehearsed(cfg: CfgNode) -> Iterator[Trainer]:
    """The trainer of a new run, ready to begin, in a directory that is deleted afterwards."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.WEIGHTS and "://" not in cfg.MODEL.WEIGHTS:
        cfg.MODEL.WEIGHTS = find_weights(cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    with tempfile.TemporaryDirectory() as folder:
        cfg.OUTPUT_DIR = folder
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        yield trainer


def _time_steps(trainer: Trainer) -> tuple[float, float]:
    """Seconds of an iteration, and the share of waiting for data, after one to warm up."""
    trainer.read_batches()
    seconds, waits = [], []
    with EventStorage(0) as storage:
        for trainer.iter in range(1 + STEPS):
            start = time.perf_counter()
            trainer.run_step()
            _finish(trainer.cfg)
            seconds.append(time.perf_counter() - start)
            if comm.is_main_process():
                loss, waited = (storage.latest()[x][0] for x in ("total_loss", "data_time"))
                waits.append(waited)
                logger.info(f"iteration {trainer.iter}: {seconds[-1]:.3g} s, total loss {loss:.3f}")
            storage.step()
    share = sum(waits[1:]) / sum(seconds[1:])
    return float(np.median(seconds[1:])), share


@torch.no_grad()
def _time_tests(trainer: Trainer) -> tuple[float | None, int]:
    """Seconds of a picture at inference, and how many pictures an evaluation has."""
    cfg = trainer.test_cfg
    loaders = [Trainer.build_test_loader(cfg, name) for name in cfg.DATASETS.TEST]
    if not loaders:
        return None, 0
    model = as_tested(cfg, trainer.model_to_use).eval()
    seconds = []
    for batch in islice(loaders[0], 1 + TESTED):
        start = time.perf_counter()
        model(batch)
        _finish(cfg)
        seconds.append(time.perf_counter() - start)
    pictures = sum(len(loader) for loader in loaders)  # of this process
    # With fewer pictures than processes, one may have none.
    return float(np.median(seconds[1:] or seconds)) if seconds else None, pictures


def _finish(cfg: CfgNode) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def number_of_checkpoints(cfg: CfgNode) -> int:
    """How many files of weights a finished run leaves, with its schedule in iterations."""
    keep, evaluates = cfg.SOLVER.CHECKPOINT_KEEP, len(cfg.DATASETS.TEST) > 0
    periods = [cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD if evaluates else 0]
    made = sum(
        any(period > 0 and done % period == 0 for period in periods)
        for done in range(1, cfg.SOLVER.MAX_ITER)
    )
    kept = made
    if keep.LAST > 0:
        every = cfg.SOLVER.MAX_ITER // keep.EVERY if keep.EVERY else 0
        kept = min(made, keep.LAST + keep.BEST + every)
    # model_final.pth always stays; best.pth comes with an evaluation.
    return kept + 1 + evaluates


def _existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that is there."""
    while not os.path.isdir(path):
        path = path.parent
    return path


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
