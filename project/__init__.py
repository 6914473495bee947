"""Cascade Mask R-CNN with timm backbones, for Detectron2 and one's own small data set.

Importing this package imports neither torch nor Detectron2; its parts are loaded when first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY_ATTRIBUTES = {
    "Detections": "project.runtime.detections",
    "Predictor": "project.prediction.predictor",
    "add_project_config": "project.config",
    "load_weights": "project.checkpoint.loading",
}

__all__ = ["__version__", *_LAZY_ATTRIBUTES]


def __getattr__(name: str):
    if name in _LAZY_ATTRIBUTES:
        return getattr(import_module(_LAZY_ATTRIBUTES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
