"""Times of several programs that take turns, so that what slows the machine slows all of them."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import cv2
import torch

STOCK, OURS = "Detectron2", "this project"


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of the rounds."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """The spread of ``values``, of which there is one at least."""
        return cls(median(values), min(values), max(values))

    def scaled(self, factor: float) -> "Spread":
        """In another unit."""
        return Spread(self.median * factor, self.minimum * factor, self.maximum * factor)

    def __str__(self) -> str:
        digits = 2 if self.median >= 1 else 3
        median, low, high = (f"{x:.{digits}f}" for x in (self.median, self.minimum, self.maximum))
        return f"{median} ({low} - {high})"


def take_turns(programs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each program in each round; one round before them is not counted.

    Every other round goes through the programs backwards.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name in list(programs)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            programs[name]()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spreads(seconds: Mapping[str, list[float]]) -> dict[str, Spread]:
    """The spread of each program."""
    return {name: Spread.of(values) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> Spread:
    """How many times as fast as ``slow`` the program ``fast`` was, round by round."""
    return Spread.of([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


def matrix_product_speed(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-adds a second of a product of two square matrices, the median of five.

    On a GPU float32 is TF32, in which cuDNN's convolutions compute unless one asks them not to.
    """
    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 4096
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on_gpu else before)
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.rand((side, side), generator=generator).to(device, dtype) for _ in range(2)
    )
    seconds = []
    for number in range(6):
        start = time.perf_counter()
        product = first @ second
        product[0, 0].item()  # waits for the device
        if number:
            seconds.append(time.perf_counter() - start)
    torch.set_float32_matmul_precision(before)
    return side**3 / median(seconds)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, convolutions in float32 are that on GPUs too, where cuDNN rounds to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def one_core() -> Iterator[None]:
    """Inside, this process runs on one core, with one thread."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def machine() -> str:
    """Processor and number of cores, and GPUs, in words."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return ", ".join(
        [name, f"{os.cpu_count()} cores", *(torch.cuda.get_device_name(i) for i in gpus)]
    )
