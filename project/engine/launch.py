"""One process, or several that train together: spawned here, or by torchrun.

The processes are torch.distributed's, and so is what starts and watches them
(``torch.distributed.launcher``, which torchrun is made of): it finds a free port, and when one
process fails it ends the others.
"""

import logging
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta

import torch
from detectron2.utils import comm
from torch import distributed
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher import LaunchConfig, elastic_launch

from project.data.loading import STOP_SIGNALS
from project.engine.hooks import StopTraining
from project.engine.run_record import NO_RUN_ID
from project.errors import UserError

TIMEOUT = timedelta(minutes=30)
OTHERS_ERROR_SECONDS = 5


@dataclass(frozen=True)
class Processes:
    """How many processes there are, and where.

    Attributes:
        per_machine: on each machine.
        device: "cuda" or "cpu", of all of them.
        machines: number of machines; this program is started on each.
        machine_rank: which of them this is.
        dist_url: ``tcp://HOST:PORT`` of machine 0; "auto" on one machine.
    """

    per_machine: int
    device: str
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    def __post_init__(self):
        if self.machines > 1 and not re.fullmatch(r"tcp://.+:\d+", self.dist_url):
            raise UserError(
                f"--num-machines {self.machines} needs --dist-url tcp://HOST:PORT, the same on"
                " every machine, with a port that is free on machine 0"
            )
        if not 0 <= self.machine_rank < self.machines:
            raise UserError(
                f"--machine-rank {self.machine_rank}: choose 0 to {self.machines - 1} with"
                f" --num-machines {self.machines}"
            )


def started_by_torchrun() -> bool:
    """Whether this is one of several processes that something else has started."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"} <= {*os.environ}


def launch(function: Callable, args: tuple, processes: Processes) -> None:
    """Call ``function(*args)`` in every process, and end with the first failure of any.

    Raises:
        SystemExit: a process failed or was stopped; its error was printed last.
    """
    if processes.per_machine * processes.machines == 1:
        function(*args)
        return
    # torch passes on the other signals that ask to stop.
    signal.signal(signal.SIGUSR1, _raise_signal)
    try:
        elastic_launch(_launch_config(processes), _worker)(function, args, processes.device)
    except SignalException as error:
        raise StopTraining(128 + error.sigval) from error
    except ChildFailedError as error:
        raise SystemExit(_exit_code(error)) from error


def _raise_signal(number: int, frame: object) -> None:
    raise SignalException("stopped by SIGUSR1", signal.Signals(number))


def _launch_config(processes: Processes) -> LaunchConfig:
    if processes.machines == 1:
        # Port 0: the system chooses one that is free, so that two jobs do not collide.
        place = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
        run_id = uuid.uuid4().hex
    else:
        endpoint = processes.dist_url.removeprefix("tcp://")
        place = {"rdzv_backend": "static", "rdzv_endpoint": endpoint}
        place["rdzv_configs"] = {"rank": processes.machine_rank}
        run_id = NO_RUN_ID
    return LaunchConfig(
        min_nodes=processes.machines,
        max_nodes=processes.machines,
        nproc_per_node=processes.per_machine,
        run_id=run_id,
        max_restarts=0,
        **place,
        **_signals(),
    )


def _signals() -> dict[str, str]:
    """After nohup, a hangup ends nothing: torch would pass it on to the processes."""
    # An older torch has no such field, and always passes it on.
    can_choose = any(field.name == "signals_to_handle" for field in fields(LaunchConfig))
    if can_choose and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return {"signals_to_handle": "SIGTERM,SIGINT,SIGQUIT"}
    return {}


def _exit_code(error: ChildFailedError) -> int:
    """Say the first failure in one line; that of a signal to stop has been said.

    Raises:
        UserError: that was the failure.
    """
    rank, failure = error.get_first_failure()
    if failure.exitcode - 128 in STOP_SIGNALS:
        return failure.exitcode
    message = failure.message
    if isinstance(message, dict):
        message = message.get("message", "")
    # "ValueError: ..." of an exception; a process that was killed left no message.
    kind, _, text = str(message).partition(": ")
    if kind == UserError.__name__:
        raise UserError(text)
    print(f"error: process {rank} failed (exit code {failure.exitcode}): {message}", flush=True)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def _worker(function: Callable, args: tuple, device: str) -> None:
    try:
        record(with_process_group)(function, args, device)
    except BaseException as error:
        if not isinstance(error, SystemExit | UserError):
            traceback.print_exc()
        _end_at_once(error.code if isinstance(error, SystemExit) else 1)


def _end_at_once(code: int) -> None:
    """End this process without the destructors of its process group.

    They abort now and then where the group's other processes have gone, and the exit code is then
    that of the abort.
    """
    for worker in multiprocessing.active_children():
        worker.terminate()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def with_process_group(function: Callable, args: tuple, device: str) -> None:
    """Call ``function(*args)`` as one of the processes that the environment describes."""
    local_rank, local_size = (int(os.environ[k]) for k in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    on_gpu = device.startswith("cuda")
    if on_gpu:
        if ":" in device:
            raise UserError(
                f"MODEL.DEVICE is {device}, but each process takes a GPU of its own: type cuda"
                " (CUDA_VISIBLE_DEVICES chooses some)"
            )
        if local_size > torch.cuda.device_count():
            raise UserError(
                f"{local_size} processes on this machine, but torch sees"
                f" {torch.cuda.device_count()} GPU(s): start as many processes as there are GPUs"
            )
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    _make_local_group(local_size)
    try:
        function(*args)
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            # The connection was closed, for another process has failed: its error comes first.
            time.sleep(OTHERS_ERROR_SECONDS)
        raise
    # Not after an exception: the others' "connection closed" would come before its report.
    comm._LOCAL_PROCESS_GROUP = None
    distributed.destroy_process_group()


def _make_local_group(local_size: int) -> None:
    """The processes of each machine as a group, which Detectron2's ``comm`` asks for."""
    rank = distributed.get_rank()
    for first in range(0, distributed.get_world_size(), local_size):
        ranks = list(range(first, first + local_size))
        group = distributed.new_group(ranks)
        if rank in ranks:
            # Detectron2 0.6 has no function for this.
            comm._LOCAL_PROCESS_GROUP = group
