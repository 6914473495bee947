"""Which devices a run uses."""

import logging
from collections.abc import Sequence

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
        UserError: more GPUs were asked for than there are, a GPU where there is none, or one that
            torch was not compiled for.
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
    if num_gpus == 0:
        raise UserError(
            f"--num-gpus 0 asks for the CPU, and MODEL.DEVICE for {cfg.MODEL.DEVICE}: leave one of"
            " the two out"
        )
    wanted = 1 if num_gpus is None else num_gpus
    if wanted > available:
        instead = f"--num-gpus {available}" if available else "MODEL.DEVICE cpu without --num-gpus"
        raise UserError(
            f"{wanted} GPU(s) asked for, but torch {torch.__version__} sees {available} that it can"
            f" use; type {instead} (python scripts/torch_versions.py report says why)"
        )
    if number:
        _choose_gpu(int(number), wanted, available)
    if available:
        _require_kernels(int(number or 0))
    return wanted


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a GPU can run what a torch was compiled for.

    Machine code runs on later GPUs of the same major version, PTX on all later ones (CUDA C++
    Programming Guide, "Compute Capability").

    Args:
        capability: of the GPU, major and minor.
        architectures: as ``torch.cuda.get_arch_list`` names them: "sm_86", "compute_90", ... Of
            others ("gfx90a", AMD's) nothing is known, and they are taken for fitting ones.
    """
    if not all(name.startswith(("sm_", "compute_")) for name in architectures):
        return True
    for name in architectures:
        kind, _, digits = name.partition("_")
        compiled = divmod(int(digits.rstrip("af")), 10)
        is_same = kind == "compute" or compiled[0] == capability[0]
        if is_same and compiled <= capability:
            return True
    return False


def _require_kernels(index: int) -> None:
    architectures = torch.cuda.get_arch_list()
    if not has_kernels(torch.cuda.get_device_capability(index), architectures):
        raise UserError(
            f"torch {torch.__version__} was not compiled for GPU {index},"
            f" {torch.cuda.get_device_name(index)} (it was for {' '.join(architectures)}): python"
            " scripts/torch_versions.py report says which torch is; or type MODEL.DEVICE cpu"
        )


def _choose_gpu(number: int, wanted: int, available: int) -> None:
    """Let this process use GPU ``number``, also where torch takes "the current one"."""
    if wanted > 1:
        raise UserError(
            f"MODEL.DEVICE cuda:{number} is one GPU, and --num-gpus asks for {wanted}: leave one"
            " of the two out (CUDA_VISIBLE_DEVICES chooses several)"
        )
    if number >= available:
        raise UserError(
            f"MODEL.DEVICE is cuda:{number}, but torch sees {available} GPU(s), from cuda:0 on"
        )
    torch.cuda.set_device(number)
