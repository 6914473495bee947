"""Call a function of this file in several CPU processes: python tests/tools/run_processes.py NAME.

Each prints nothing and ends with an exception where something is wrong.
"""

import os
import signal
import sys
import time

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from project.backbone.cpu_sync_batchnorm import use_cpu_sync_batchnorm
from project.engine.launch import Processes, launch
from project.engine.step import TrainStep
from project.errors import UserError, reports_user_errors
from project.loss_normalizer import share_of_mean
from project.running_statistics import share_statistics

CHANNELS = 3


def one_raises() -> None:
    if comm.get_rank() == 1:
        raise FloatingPointError("iteration 3, images [7, 9]: a loss is not finite")
    distributed.all_reduce(torch.zeros(1))  # waits for the other


def one_meets_a_mistake_of_the_user() -> None:
    if comm.get_rank() == 1:
        raise UserError("choose another: name")
    distributed.all_reduce(torch.zeros(1))  # waits for the other


def one_is_killed() -> None:
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(100)


class MeanOfIds(nn.Module):
    """Its loss is NaN where an image id is 9."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([float(record["image_id"]) for record in batch])
        return {"loss": (self.weight * ids.where(ids != 9, float("nan"))).mean()}


def one_has_a_loss_that_is_not_finite() -> None:
    """No process takes that step."""
    model = DistributedDataParallel(MeanOfIds())
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), seed=0)
    ids = [[1, 2], [3, 4]] if comm.get_rank() == 0 else [[5, 6], [7, 9]]
    step.batches = iter([[{"image_id": number} for number in batch] for batch in ids])
    with EventStorage():
        step.iter = 0
        step.run_step()
        before = model.module.weight.item()
        step.iter = 1
        try:
            step.run_step()
        finally:
            assert model.module.weight.item() == before


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


def statistics_become_those_of_the_main_process() -> None:
    norm = nn.BatchNorm2d(CHANNELS)
    frozen = nn.BatchNorm2d(CHANNELS).eval()
    rank = comm.get_rank()
    for module in (norm, frozen):
        module.running_mean.fill_(rank)
        module.running_var.fill_(2 + rank)
    share_statistics(nn.Sequential(norm, frozen))
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(2).all()
    assert frozen.running_mean.eq(rank).all()  # nobody changed it, and nobody needs it sent


if __name__ == "__main__":
    reports_user_errors(launch)(globals()[sys.argv[1]], (), Processes(2, "cpu"))
