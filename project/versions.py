"""The versions of what a run's numbers depend on."""

import detectron2
import timm
import torch

import project


def versions() -> dict[str, str]:
    """Of this project, torch, Detectron2 and timm."""
    modules = (project, torch, detectron2, timm)
    # torch's is a class of its own, which a checkpoint must not hold.
    return {module.__name__: str(module.__version__) for module in modules}
