"""Weights from a seed, for comparing two implementations of one network.

Each tensor depends on the seed, its name (mmdetection's) and its shape only. The scales keep the
features of every level alive, the proposals apart and some tens of detections above the score
threshold, so that a comparison has something to compare.
"""

import zlib
from collections.abc import Mapping

import numpy as np

# (part of the name, factor of He's standard deviation); the first that fits counts.
_GAINS = (
    ("stem.0", 0.6),
    ("lateral_convs", 0.8),
    ("fpn_convs.0", 0.65),
    ("fpn_convs.1", 1.05),
    ("fpn_convs.2", 1.8),
    ("fpn_convs.3", 3.0),
    ("rpn_cls", 1.5),
    ("rpn_reg", 0.2),
    ("fc_cls", 18.0),
    ("fc_reg", 1.5),
    (".convs.0.conv", 1.0),
    ("shared_convs.0.conv", 1.0),
    ("conv_logits", 4.0),
    ("conv2.fc2", 2.0),
    ("", 1.7),
)
_BACKGROUND_LOGIT = 10.0  # else every proposal would be an object


def seeded_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """A value for every tensor of a state dict.

    Args:
        shapes: mmdetection's name -> shape.

    Returns:
        float32 arrays; int64 for ``num_batches_tracked``.
    """
    norms = {name.removesuffix(".running_var") for name in shapes if name.endswith(".running_var")}
    return {name: _value(name, tuple(shape), norms, seed) for name, shape in shapes.items()}


def _value(name: str, shape: tuple[int, ...], norms: set[str], seed: int) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.array(1, dtype=np.int64)
    random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    module, _, kind = name.rpartition(".")
    if kind == "running_mean":
        value = 0.1 * random.standard_normal(shape)
    elif kind == "running_var" or (module in norms and kind == "weight"):
        value = random.uniform(0.8, 1.2, shape)
        if module.endswith("bn3") and kind == "weight":
            value *= 0.3  # the residual branches are added sixteen times
    elif kind == "bias":
        value = 0.05 * random.standard_normal(shape)
        if module.endswith("fc_cls"):
            value[-1] += _BACKGROUND_LOGIT
    else:
        value = _filters(random.standard_normal(shape), name)
    return value.astype(np.float32)


def _filters(value: np.ndarray, name: str) -> np.ndarray:
    # One tap of a 2x2 transposed convolution of stride 2 reaches a pixel; it is stored (in, out).
    axes = (0,) if "upsample" in name else tuple(range(1, value.ndim))
    if "stem.0" not in name:
        # What ReLU features have in common would otherwise hide what differs between them.
        value = value - value.mean(axis=axes, keepdims=True)
    fan_in = np.prod([value.shape[axis] for axis in axes])
    gain = next(gain for part, gain in _GAINS if part in name)
    return value * (gain / np.sqrt(fan_in))
