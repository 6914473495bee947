"""Patterns: what fills the silhouettes, and what the backgrounds are made of.

All patterns are functions of coordinates that return a weight in 0..1, which mixes two colours.
"""

from collections.abc import Callable

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _wave(x: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between 0 and 1."""
    return np.abs(2 * (x - np.floor(x)) - 1)


def _step(x: np.ndarray) -> np.ndarray:
    return (x - np.floor(x) < 0.5).astype(np.float64)


def _checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(_step(u) - _step(v))


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    du, dv = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return (du * du + dv * dv < 0.09).astype(np.float64)


def _bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(2 * v)
    shifted = u + 0.5 * (row - 2 * np.floor(row / 2))
    mortar = (2 * v - row < 0.2) | (shifted - np.floor(shifted) < 0.1)
    return mortar.astype(np.float64)


def _rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _step(np.sqrt(u * u + v * v))


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _step(v + 0.5 * _wave(u))


# In the frame of an object, in which it reaches from about -1 to 1.
OBJECT_PATTERNS: dict[str, Pattern] = {
    "plain": lambda u, v: 0.0 * u,
    "shaded": lambda u, v: np.clip((v + 1) / 2, 0, 1),
    "stripes_across": lambda u, v: _step(2.5 * v),
    "stripes_along": lambda u, v: _step(2.5 * u),
    "stripes_diagonal": lambda u, v: _step(1.8 * (u + v)),
    "checks": lambda u, v: _checks(2 * u, 2 * v),
    "dots": lambda u, v: _dots(2.5 * u, 2.5 * v),
    "bricks": lambda u, v: _bricks(1.6 * u, 1.6 * v),
    "rings": lambda u, v: _rings(2.5 * u, 2.5 * v),
    "zigzag": lambda u, v: _zigzag(2.5 * u, 2.5 * v),
}


def value_noise(rng: np.random.RandomState, height: int, width: int, cell: int) -> np.ndarray:
    """Random values every ``cell`` pixels, interpolated. Shape (height, width), in 0..1."""
    rows, columns = height // cell + 2, width // cell + 2
    grid = rng.randint(0, 256, size=(rows, columns)) / 255.0
    y, x = np.arange(height) / cell, np.arange(width) / cell
    y0, x0 = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    fy, fx = (y - y0)[:, None], (x - x0)[None, :]
    top = grid[y0][:, x0] * (1 - fx) + grid[y0][:, x0 + 1] * fx
    bottom = grid[y0 + 1][:, x0] * (1 - fx) + grid[y0 + 1][:, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


Background = Callable[[np.random.RandomState, np.ndarray, np.ndarray], np.ndarray]


def _scale(rng: np.random.RandomState, low: int, high: int) -> float:
    return float(rng.randint(low, high + 1))


def _soft_stripes(rng, y, x):
    period, slope = _scale(rng, 12, 40), rng.randint(-10, 11) / 10
    return _wave((y + slope * x) / period)


def _tiles(rng, y, x):
    size = _scale(rng, 14, 40)
    return _checks(x / size, y / size)


def _gradient(rng, y, x):
    return np.clip((y * rng.randint(1, 5) + x * rng.randint(1, 5)) / (8.0 * x.shape[1]), 0, 1)


def _blotches(rng, y, x):
    return value_noise(rng, len(y), x.shape[1], int(_scale(rng, 18, 48)))


def _clouds(rng, y, x):
    height, width = len(y), x.shape[1]
    return sum(value_noise(rng, height, width, 64 >> k) / (2 << k) for k in range(3)) * 8 / 7


def _weave(rng, y, x):
    period = _scale(rng, 10, 24)
    return (_wave(x / period) + _wave(y / period)) / 2


def _pebbles(rng, y, x):
    noise = value_noise(rng, len(y), x.shape[1], int(_scale(rng, 8, 16)))
    return _wave(2 * noise)


def _ripples(rng, y, x):
    cy, cx = rng.randint(0, len(y)), rng.randint(0, x.shape[1])
    return _wave(np.sqrt((y - cy) ** 2 + (x - cx) ** 2) / _scale(rng, 16, 40))


# Test pictures have other textures than training pictures: nothing can be learnt from them.
BACKGROUNDS: dict[str, dict[str, Background]] = {
    "train": {
        "soft_stripes": _soft_stripes,
        "tiles": _tiles,
        "gradient": _gradient,
        "blotches": _blotches,
    },
    "test": {"clouds": _clouds, "weave": _weave, "pebbles": _pebbles, "ripples": _ripples},
}


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue in degrees, the others in 0..1 -> RGB in 0..255, shape (3,)."""
    chroma = value * saturation
    sector = (hue % 360) / 60
    second = chroma * (1 - abs(sector % 2 - 1))
    rgb = [
        (chroma, second, 0.0),
        (second, chroma, 0.0),
        (0.0, chroma, second),
        (0.0, second, chroma),
        (second, 0.0, chroma),
        (chroma, 0.0, second),
    ][int(sector)]
    return 255 * (np.array(rgb) + value - chroma)
