"""Synchronised BatchNorm for processes on CPUs, where torch has none."""

import torch
from fvcore.nn.distributed import differentiable_all_reduce
from timm.layers.norm_act import SyncBatchNormAct
from torch import distributed, nn


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """``torch.nn.SyncBatchNorm`` on CPU tensors: the statistics of all processes' batches.

    A process may have an empty batch: RoIs of a picture without objects, say. It is no subclass,
    for ``DistributedDataParallel`` refuses those on a CPU, but one of a class that fvcore's precise
    statistics know.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Any number of dimensions from two on, as in ``SyncBatchNorm``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (N, C, ...) to the same."""
        if not (self.training and distributed.is_initialized()):
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        # In double precision: a difference of squares follows.
        wide = x.double()
        count = wide.new_full((1,), x.numel() / x.shape[1])
        sums = differentiable_all_reduce(torch.cat([wide.sum(dims), (wide**2).sum(dims), count]))
        total = sums[-1].detach().clamp(min=1)
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean**2).clamp(min=0)
        if self.track_running_stats and sums[-1] > 0:
            with torch.no_grad():
                self.num_batches_tracked += 1
                unbiased = variance * (total / (total - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = (variance + self.eps).rsqrt()
        # As in torch's own, half precision is that of the result only.
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = (x.to(dtype) - mean.to(dtype).view(shape)) * scale.to(dtype).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


class CPUSyncBatchNormAct(CPUSyncBatchNorm):
    """timm's ``SyncBatchNormAct``, a norm with an activation, likewise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (N, C, ...) to the same."""
        return self.act(self.drop(super().forward(x)))


_STAND_INS = {nn.SyncBatchNorm: CPUSyncBatchNorm, SyncBatchNormAct: CPUSyncBatchNormAct}


def use_cpu_sync_batchnorm(model: nn.Module) -> None:
    """Let every synchronised BatchNorm of ``model`` work on CPU tensors, in place."""
    for module in model.modules():
        # The class alone: others hold on to the modules, frozen ones among them.
        module.__class__ = _STAND_INS.get(type(module), type(module))
