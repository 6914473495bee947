"""How much memory this process has needed."""

import os
import resource
import sys

import torch


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    try:
        # Not getrusage's where it can be had: that begins with the size of the parent process.
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 2**10
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10


def peak_memory_of_device(device: str) -> tuple[int, int]:
    """The largest memory so far, and all that there is, in bytes.

    Args:
        device: "cpu", for which it is the process's, or "cuda", for which it is torch's tensors'.
    """
    if device.startswith("cuda"):
        total = torch.cuda.get_device_properties(torch.device(device)).total_memory
        return torch.cuda.max_memory_allocated(), total
    return peak_memory(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
