"""A trained model as one ONNX file, for :mod:`project.runtime`."""
