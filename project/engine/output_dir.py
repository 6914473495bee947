"""The directory of a run: what is in it, and when that may be replaced."""

import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from detectron2.config import CfgNode
from detectron2.utils import comm

from project.checkpoint.reading import find_weights, periodic_checkpoints
from project.data.loading import build_train_loader
from project.engine.dry_run import rehearsed
from project.engine.run_record import CLAIM, claim_for_job, is_claimed
from project.errors import UserError
from project.files import make_folder

logger = logging.getLogger(__name__)

LOCK = "run.lock"
_held: dict[Path, IO] = {}  # of this process; the system lets go of them when it ends

# Beside the periodic checkpoints.
_CHECKPOINTS = ("model_final.pth", "best.pth", "last_checkpoint")
_RUN_FILES = (
    *(*_CHECKPOINTS, "*.pth.tmp", "latest.pth", "config.yaml", "metrics.json", "run.json"),
    *("events.out.tfevents.*", "log.txt*", "evaluation*.json", CLAIM),
)


def files_to_replace(cfg: CfgNode, *, resume: bool, overwrite: bool) -> list[Path]:
    """The files of a run in ``OUTPUT_DIR`` that is to be replaced; mixing two runs is refused.

    Args:
        resume: the run that is there goes on.
        overwrite: it may be replaced.

    Raises:
        UserError: it may not, or training is to start from one of its files; or there is a
            checkpoint of another origin, whose name the run's would take.
    """
    output_dir = Path(cfg.OUTPUT_DIR)
    metrics = output_dir / "metrics.json"  # it is empty if the first iteration was not reached
    periodic = periodic_checkpoints(output_dir)
    holds_run = (
        (metrics.exists() and metrics.stat().st_size > 0)
        or len(periodic) > 0
        or any((output_dir / name).exists() for name in _CHECKPOINTS)
    )
    latest = output_dir / "latest.pth"  # of a run it is a link, or beside what it is a copy of
    if not holds_run and latest.exists() and not latest.is_symlink():
        if not overwrite:
            raise UserError(
                f"training would replace {str(latest)!r}, which is of no run here; move it away,"
                " add --overwrite, or choose another OUTPUT_DIR"
            )
        _require_other_weights(cfg, [latest])
    if not holds_run or resume:
        return []
    if not overwrite:
        raise UserError(
            f"OUTPUT_DIR {str(output_dir)!r} already holds a run; add --resume to go on with it,"
            " --overwrite to replace it, or OUTPUT_DIR OTHER at the end of the command"
        )
    replaced = [*periodic, *(path for name in _RUN_FILES for path in output_dir.glob(name))]
    _require_other_weights(cfg, replaced)
    return replaced


def _require_other_weights(cfg: CfgNode, replaced: Sequence[Path]) -> None:
    if not cfg.MODEL.WEIGHTS:
        return
    weights = Path(find_weights(cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)).resolve()
    if weights in [path.resolve() for path in replaced]:
        raise UserError(
            f"--overwrite would delete MODEL.WEIGHTS {cfg.MODEL.WEIGHTS}, which training is to"
            " start from; choose another OUTPUT_DIR"
        )


def claim_output_dir(cfg: CfgNode, replaced: Sequence[Path]) -> None:
    """Make the run's directory, without the files of the run before, and lock it.

    Raises:
        UserError: the directory cannot be made, or another process trains there.
    """
    output_dir = Path(cfg.OUTPUT_DIR)
    make_folder(output_dir, "OUTPUT_DIR")
    _lock(output_dir)
    for path in replaced:
        path.unlink()
    if replaced:
        shutil.rmtree(output_dir / "inference", ignore_errors=True)
    claim_for_job(cfg.OUTPUT_DIR)


def _lock(output_dir: Path) -> None:
    """Keep other trainings out of a run's directory until this process ends.

    Raises:
        UserError: another process, of this machine or of one that shares the folder, is in it; or
            nothing can be written there.
    """
    path = (output_dir / LOCK).resolve()
    if path in _held:
        return
    try:
        file = path.open("a+")
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {str(output_dir)!r} cannot be written to: {error.strerror}"
        ) from error
    try:
        # Not flock, nor the libraries that call it: workers that outlive a killed training for
        # some seconds would have that lock, too.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        if is_claimed(str(output_dir)):
            # Another machine's lock can outlive it for minutes.
            logger.warning(f"{path} is held by an earlier start of this job: going on")
            return
        file.seek(0)
        raise UserError(
            f"OUTPUT_DIR {str(output_dir)!r}: a training is going on there (process"
            f" {file.read().strip()}); wait for its end, stop it, or choose another OUTPUT_DIR (if"
            f" that machine is lost, delete {path.name} there)"
        ) from error
    except OSError as error:
        logger.warning(f"{path} cannot be locked ({error.strerror}): start no second run there")
    with suppress(OSError):  # on a full disk nobody is named
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
    _held[path] = file


def require_trainer(cfg: CfgNode) -> None:
    """Build all that trains, and fill the model, once, for what that refuses.

    Called in every process that there is, before a run is deleted for another one.
    """
    cfg = cfg.clone()
    if comm.get_world_size() == 1:
        cfg.MODEL.DEVICE = "cpu"  # processes that are started after this one need its GPU
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 0  # of them, this one alone is here
    with rehearsed(cfg) as trainer:
        build_train_loader(trainer.cfg, trainer.records, seed=0)
