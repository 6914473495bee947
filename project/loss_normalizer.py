"""Losses that count every sample of all processes alike."""

import torch
from detectron2.utils import comm
from torch import distributed


def share_of_mean(count: int | torch.Tensor, device: torch.device) -> torch.Tensor:
    """``count`` over its mean over all processes.

    Times this, a mean over one process's samples is their sum divided by the mean count. Averaged
    over the processes, as ``DistributedDataParallel`` does with gradients, that is the mean over
    all samples of all processes.

    Args:
        count: samples of this process; 0 where there are none.

    Returns:
        A scalar, float32; 1 for every process if all have as many.
    """
    own = torch.as_tensor(count, dtype=torch.float32, device=device)
    if comm.get_world_size() == 1:
        return torch.ones_like(own)
    total = own.clone()
    distributed.all_reduce(total)
    return own * comm.get_world_size() / total.clamp(min=1)
