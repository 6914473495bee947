"""Depthwise convolutions on CPUs, in training with mixed precision."""

import torch
from timm.layers import Conv2dSame
from torch import nn


class _Float32InMixedPrecision:
    """Computes in float32 where autocast would choose another dtype, and returns that dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (N, C, H, W) to (N, C, H', W')."""
        # Where there is no weight gradient, bfloat16 is no slower.
        trains = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if not (x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and trains):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))


class _Conv2d(_Float32InMixedPrecision, nn.Conv2d):
    pass


class _Conv2dSame(_Float32InMixedPrecision, Conv2dSame):
    pass


_FAST = {nn.Conv2d: _Conv2d, Conv2dSame: _Conv2dSame}


def use_fast_depthwise(body: nn.Module) -> None:
    """Let large depthwise convolutions of ``body`` train in float32 on CPUs, in place.

    oneDNN has a kernel for the weight gradient in bfloat16 for 3 x 3; larger ones take up to eight
    times as long as in float32 (torch 2.11).
    """
    for module in body.modules():
        fast = _FAST.get(type(module))
        if fast and 1 < module.groups == module.in_channels and max(module.kernel_size) > 3:
            # The class alone: parameters and their names stay.
            module.__class__ = fast
