"""Which devices a run uses."""

import logging

import torch
from detectron2.config import CfgNode

from project.errors import UserError

logger = logging.getLogger(__name__)


def resolve_devices(cfg: CfgNode, num_gpus: int | None, device_is_given: bool) -> int:
    """Set ``cfg.MODEL.DEVICE`` to what is there, and return the number of processes.

    Args:
        num_gpus: what the user asked for; None for one GPU if there is one, else the CPU. With
            ``MODEL.DEVICE cpu`` it is the number of processes.
        device_is_given: whether the user named ``MODEL.DEVICE``.

    Raises:
        UserError: more GPUs were asked for than there are, or a GPU where there is none.
    """
    if num_gpus is not None and num_gpus < 0:
        raise UserError(f"--num-gpus {num_gpus}: choose 0 (the CPU) or more")
    kind, _, number = cfg.MODEL.DEVICE.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; choose cpu, cuda, or cuda:1, say")
    if num_gpus == 0 and not device_is_given:
        cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        return max(num_gpus or 1, 1)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if available == 0 and num_gpus is None and not device_is_given:
        logger.info("No usable GPU here: everything runs on the CPU (MODEL.DEVICE cpu)")
        cfg.MODEL.DEVICE = "cpu"
        return 1
    wanted = 1 if num_gpus is None else num_gpus
    if wanted > available:
        instead = f"--num-gpus {available}" if available else "MODEL.DEVICE cpu without --num-gpus"
        raise UserError(
            f"{wanted} GPU(s) asked for, but torch {torch.__version__} sees {available} that it can"
            f" use; type {instead}"
        )
    return wanted
