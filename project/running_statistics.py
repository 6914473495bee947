"""The running statistics of BatchNorm: of what they are not to learn, and one for all processes."""

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import distributed, nn

from project.backbone.cpu_sync_batchnorm import CPUSyncBatchNorm

_SYNCHRONISED = (nn.SyncBatchNorm, CPUSyncBatchNorm)


@contextmanager
def statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """Inside, training leaves the running statistics as they are, unless processes share them.

    Shared ones are mostly of the other processes' RoIs, and are the same on each.
    """
    is_shared = comm.get_world_size() > 1
    norms = [x for x in get_bn_modules(module) if not (is_shared and isinstance(x, _SYNCHRONISED))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def share_statistics(model: nn.Module) -> None:
    """Give BatchNorm on every process the running statistics of the main one.

    Each process has those of its own pictures, and checkpoints have the main one's. Nor are they
    equal after fvcore's precise statistics with SyncBN, which are weighed by each process's own
    number of RoIs.
    """
    if comm.get_world_size() > 1:
        for norm in get_bn_modules(model):
            distributed.broadcast(norm.running_mean, src=0)
            distributed.broadcast(norm.running_var, src=0)
