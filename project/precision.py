"""Which dtype convolutions and linear layers compute in."""

import torch
from detectron2.config import CfgNode

from project.errors import require_choice

DTYPES = ("auto", "float32", "bfloat16", "float16")


def training_dtype(cfg: CfgNode) -> torch.dtype:
    """``SOLVER.AMP.DTYPE`` on ``MODEL.DEVICE``; float32 without ``SOLVER.AMP.ENABLED``.

    "auto" is bfloat16 where the machine computes with it, else float16 on a GPU, where the losses
    are scaled, and float32 on a CPU, which imitates both slowly.

    Raises:
        UserError: there is no such dtype.
    """
    require_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, DTYPES)
    if not cfg.SOLVER.AMP.ENABLED:
        return torch.float32
    device = torch.device(cfg.MODEL.DEVICE)
    otherwise = torch.float16 if device.type == "cuda" else torch.float32
    return resolve_dtype(cfg.SOLVER.AMP.DTYPE, device, otherwise=otherwise)


def resolve_dtype(name: str, device: torch.device, *, otherwise: torch.dtype) -> torch.dtype:
    """The dtype called ``name``; "auto" is bfloat16 where ``device`` computes with it."""
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if computes_in_bfloat16(device) else otherwise


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16, which others imitate slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older versions of torch lack some of these.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, x, bool)() for x in names)
