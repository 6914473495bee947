"""``run.json``: what was run, on what, how fast, and how it ended."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from project.engine.hooks import StopTraining
from project.files import write_json, write_text
from project.memory import peak_memory_of_device

RUN_RECORD = "run.json"
CLAIM = "torchrun_job"
NO_RUN_ID = "none"  # torchrun's id where the user gave none
EARLY_STOP = "stopped by TEST.EARLY_STOP_PATIENCE"
FINISHED = ("finished", EARLY_STOP)


class RunRecordHook(HookBase):
    """Writes ``run.json`` when training begins, and completes it when it ends.

    Args:
        output_dir: the run's directory.
        config: the resolved config, as YAML text.
        batch_size: pictures in an iteration, of all processes.
        device: "cuda" or "cpu".
        dtype: of training; "auto" depends on the machine.
        versions: of the packages that a run's numbers depend on.
    """

    def __init__(
        self,
        output_dir: str,
        *,
        config: str,
        batch_size: int,
        device: str,
        dtype: torch.dtype,
        versions: dict,
    ):
        self._path = Path(output_dir) / RUN_RECORD
        self._batch_size = batch_size
        self._device = device
        self._record = {
            "command": sys.argv,
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            "git_commit": _git_commit(),
            "versions": {**versions, "python": sys.version.split()[0]},
            "devices": _device_names(device),
            "dtype": str(dtype).removeprefix("torch."),
            "processes": comm.get_world_size(),
        }

    def before_train(self) -> None:
        self._start = time.monotonic()
        self._record.update(start=_now(), start_iteration=self.trainer.start_iter, exit="running")
        self._write()

    def after_train(self) -> None:
        error = sys.exc_info()[1]
        finished = self.trainer.iter >= self.trainer.max_iter
        began = "start" in self._record
        if not began:  # a hook before this one has ended the run
            self.before_train()
        # A stop comes after an iteration, an error in it. Detectron2 counts one more where nothing
        # was left to do.
        stopped_after_one = began and not finished and isinstance(error, StopTraining)
        end = self.trainer.iter + stopped_after_one
        end = min(end, self.trainer.max_iter)
        self._record.update(
            end=_now(),
            end_iteration=end,
            images_per_second=self._speed(end - self.trainer.start_iter),
            peak_memory_mib=peak_memory_of_device(self._device)[0] // 2**20,
            exit="finished" if finished and error is None else _reason(error),
        )
        self._write()

    def _speed(self, iterations: int) -> float | None:
        """Pictures a second, without evaluations and checkpoints."""
        if not iterations:
            return None
        # Detectron2 does not time the first few.
        timed = self.trainer.storage.histories().get("time")
        seconds = timed.global_avg() if timed else (time.monotonic() - self._start) / iterations
        return round(self._batch_size / seconds, 3)

    def _write(self) -> None:
        if comm.is_main_process():
            write_json(self._record, self._path, indent=2)


def torchrun_job() -> str:
    """What torchrun's processes of one job share, over restarts; "" without torchrun.

    That is ``--rdzv-id``, which a job that is started again can share too; without one, it is the
    program that starts the processes of this machine.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{socket.gethostname()}:{os.getppid()}" if run_id == NO_RUN_ID else run_id


def outlives_its_processes() -> bool:
    """Whether a job that is started again can be this one: it has an id of its own."""
    return os.environ.get("TORCHELASTIC_RUN_ID", NO_RUN_ID) != NO_RUN_ID


def claim_for_job(output_dir: str) -> None:
    """Note in a run's directory that it is that of this :func:`torchrun_job`, if there is one."""
    if torchrun_job():
        write_text(torchrun_job(), Path(output_dir) / CLAIM)


def is_claimed(output_dir: str) -> bool:
    """Whether a run's directory is that of this :func:`torchrun_job`."""
    try:
        return torchrun_job() == (Path(output_dir) / CLAIM).read_text()
    except OSError:
        return False


def is_finished(output_dir: str) -> bool:
    """Whether the run in a directory came to its end."""
    try:
        return json.loads((Path(output_dir) / RUN_RECORD).read_text())["exit"] in FINISHED
    except (OSError, ValueError, KeyError):
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: BaseException | None) -> str:
    if isinstance(error, StopTraining):
        return f"stopped by {signal.Signals(error.code - 128).name}" if error.code else EARLY_STOP
    return "stopped" if error is None else f"{type(error).__name__}: {error}"


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() or None


def _device_names(device: str) -> list[str]:
    if device.startswith("cuda"):
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [f"cpu, {torch.get_num_threads()} threads"]
