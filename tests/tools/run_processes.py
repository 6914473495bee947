"""Call a function of this file in several CPU processes: python tests/tools/run_processes.py NAME.

Each prints nothing and ends with an exception where something is wrong.
"""

import os
import signal
import sys
import time

import torch
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from project.backbone.cpu_sync_batchnorm import use_cpu_sync_batchnorm
from project.engine.launch import Processes, launch
from project.loss_normalizer import share_of_mean

CHANNELS = 3


def one_raises() -> None:
    if comm.get_rank() == 1:
        raise FloatingPointError("iteration 3, images [7, 9]: a loss is not finite")
    distributed.all_reduce(torch.zeros(1))  # waits for the other


def one_is_killed() -> None:
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(100)


def batchnorm_is_that_of_all_batches() -> None:
    """Output, gradients and statistics, against one BatchNorm on everything; one batch is empty."""
    sizes = [4, 0]
    random = torch.Generator().manual_seed(0)
    everything = 5 + 3 * torch.randn(sum(sizes), CHANNELS, 2, 3, generator=random)
    weights = torch.rand(everything.shape, generator=random)  # of a loss that is not symmetric
    expected_norm = nn.BatchNorm2d(CHANNELS)
    expected_input = everything.clone().requires_grad_()
    expected = expected_norm(expected_input)
    (expected * weights).sum().backward()

    start = sum(sizes[: comm.get_rank()])
    mine = slice(start, start + sizes[comm.get_rank()])
    norm = nn.SyncBatchNorm(CHANNELS)
    use_cpu_sync_batchnorm(norm)
    x = everything[mine].clone().requires_grad_()
    output = norm(x)
    (output * weights[mine]).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(output, expected[mine], **close)
    torch.testing.assert_close(x.grad, expected_input.grad[mine], **close)
    torch.testing.assert_close(norm.running_mean, expected_norm.running_mean, **close)
    torch.testing.assert_close(norm.running_var, expected_norm.running_var, **close)


def means_are_over_all_samples() -> None:
    """With unequal counts, gradients are those of one mean over everything."""
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(7, 4, generator=random), torch.randn(7, 1, generator=random)
    parts = [slice(0, 5), slice(5, 7)]
    torch.manual_seed(0)
    single = nn.Linear(4, 1)
    nn.functional.mse_loss(single(x), y).backward()
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(4, 1))
    mine = parts[comm.get_rank()]
    loss = nn.functional.mse_loss(model(x[mine]), y[mine])
    (loss * share_of_mean(len(x[mine]), x.device)).backward()
    torch.testing.assert_close(model.module.weight.grad, single.weight.grad)


if __name__ == "__main__":
    launch(globals()[sys.argv[1]], (), Processes(2, "cpu"))
