"""Use an exported model: numpy, OpenCV and onnxruntime are all that it takes.

>>> from project.runtime import load
>>> detector = load("model.onnx")
>>> detections = detector(image)  # RGB, uint8, (H, W, 3)
"""

from importlib import import_module

_LAZY_ATTRIBUTES = {
    "Detections": "project.runtime.detections",
    "OnnxDetector": "project.runtime.detector",
    "load": "project.runtime.detector",
}

__all__ = ["Detections", "OnnxDetector", "is_exported", "load"]


def is_exported(path: str) -> bool:
    """Whether a weights file is an ONNX file of ``scripts/export_model.py``, by its name."""
    return path.lower().endswith(".onnx")


# Who trains uses the result type, but not onnxruntime.
def __getattr__(name: str):
    if name in _LAZY_ATTRIBUTES:
        return getattr(import_module(_LAZY_ATTRIBUTES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
