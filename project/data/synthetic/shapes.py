"""Twenty silhouettes as rings of points, and their rasterisation.

Coordinates are in a unit frame: x to the right, y down, about -1 to 1. Curves come from the
rational parametrisation of the circle, since the last bit of ``sin`` and ``cos`` differs between
machines.
"""

import numpy as np

Ring = list[tuple[float, float]]


def rotation(turn: float) -> tuple[float, float]:
    """(cosine, sine) of an angle that grows with ``turn``: 0 is none, 1 a quarter turn."""
    return (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)


def _circle(points: int) -> np.ndarray:
    """Points of the unit circle, four arcs of nearly even steps. Shape (points, 2)."""
    quarter = [rotation(step / (points // 4)) for step in range(points // 4)]
    return np.array(
        [p for k in range(4) for p in (_quarter_turns(c, s, k) for c, s in quarter)],
        dtype=np.float64,
    )


def _quarter_turns(x: float, y: float, k: int) -> tuple[float, float]:
    return ((x, y), (-y, x), (-x, -y), (y, -x))[k]


def _ellipse(cx: float, cy: float, rx: float, ry: float, points: int = 32) -> Ring:
    return [(cx + rx * x, cy + ry * y) for x, y in _circle(points)]


def _wavy_circle(petals: int, depth: float, points: int) -> Ring:
    """r = 1 - depth * (1 - cos(petals * angle)) / 2, with the cosine as a complex power."""
    ring = []
    for x, y in _circle(points):
        power = complex(1.0, 0.0)
        for _ in range(petals):
            power = complex(power.real * x - power.imag * y, power.real * y + power.imag * x)
        r = 1 - depth * (1 - power.real) / 2
        ring.append((r * x, r * y))
    return ring


def _gear(teeth: int) -> Ring:
    ring = []
    for index, (x, y) in enumerate(_circle(4 * teeth)):
        r = 1.0 if index % 4 < 2 else 0.7
        ring.append((r * x, r * y))
    return ring


def _star(points: int, inner: float) -> Ring:
    """A star whose tips divide the circle evenly enough for the eye."""
    circle = _circle(40)
    ring = []
    for index in range(2 * points):
        x, y = circle[(index * 40 // (2 * points) + 30) % 40]
        r = 1.0 if index % 2 == 0 else inner
        ring.append((r * x, r * y))
    return ring


def _arc_band(centre_y: float, radius: float, points: int, upper: bool) -> Ring:
    half = points // 2
    circle = _circle(points)
    arc = circle[half:] if upper else circle[:half]
    return [(radius * x, centre_y + radius * y) for x, y in arc]


def _crescent() -> Ring:
    outer = _circle(40)
    inner = [(0.78 * x + 0.42, 0.78 * y) for x, y in _circle(40)]
    left = [(x, y) for x, y in outer if x <= 0.5]
    # Start the outer arc at its upper tip, so that both arcs join without crossing.
    start = next(
        i for i in range(len(left)) if left[i][1] > 0 and left[i][0] == max(p[0] for p in left)
    )
    left = left[start:] + left[:start]
    hollow = [(x, y) for x, y in inner if x <= 0.5]
    begin = next(
        i
        for i in range(len(hollow))
        if hollow[i][1] > 0 and hollow[i][0] == max(p[0] for p in hollow)
    )
    hollow = hollow[begin:] + hollow[:begin]
    return left + hollow[::-1]


def _heart() -> Ring:
    right = [(0.5 + 0.5 * x, -0.3 + 0.5 * y) for x, y in _circle(32)]
    lobe = [(x, y) for x, y in right if y <= -0.3]
    lobe.sort(key=lambda p: p[0])
    mirrored = [(-x, y) for x, y in reversed(lobe)]
    return [*mirrored, *lobe, (0.72, 0.25), (0.0, 1.0), (-0.72, 0.25)]


def _drop() -> Ring:
    lower = [(0.62 * x, 0.36 + 0.62 * y) for x, y in _circle(32) if y >= -0.3]
    lower.sort(key=lambda p: p[0])
    bottom = [p for p in lower if p[1] >= 0.36]
    sides_left = sorted((p for p in lower if p[1] < 0.36 and p[0] < 0), key=lambda p: p[1])
    sides_right = sorted((p for p in lower if p[1] < 0.36 and p[0] > 0), key=lambda p: -p[1])
    return [(0.0, -1.0), *sides_left, *bottom, *sides_right]


def _mushroom() -> Ring:
    cap = _arc_band(-0.05, 0.95, 32, upper=True)
    return [
        *cap,
        (0.95, 0.05),
        (0.3, 0.05),
        (0.36, 0.95),
        (-0.36, 0.95),
        (-0.3, 0.05),
        (-0.95, 0.05),
    ]


def _fish() -> Ring:
    body = [(x, y) for x, y in _ellipse(-0.2, 0.0, 0.8, 0.55, 40) if x <= 0.45]
    upper = sorted((p for p in body if p[1] <= 0), key=lambda p: p[0])
    lower = sorted((p for p in body if p[1] > 0), key=lambda p: -p[0])
    return [*upper, (1.0, -0.55), (0.8, 0.0), (1.0, 0.55), *lower]


def _leaf() -> Ring:
    upper = [(x, 0.5 * (y + 0.6) / 0.4) for x, y in _circle(40) if y < -0.6]
    upper = sorted(((x / 0.8, y) for x, y in upper), key=lambda p: p[0])
    lower = [(x, -y) for x, y in reversed(upper)]
    return [(-1.0, 0.0), *upper, (1.0, 0.0), *lower]


_SQUARE = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]

# Class -> rings; inside is what lies in an odd number of them, so a second one is a hole.
# fmt: off
SHAPES: dict[str, list[Ring]] = {
    "arrow": [[(-1, -0.28), (0.1, -0.28), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.28),
               (-1, 0.28)]],
    "bolt": [[(0.2, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.6, -0.25), (0.08, -0.25)]],
    "bowtie": [[(-1, -0.65), (0, -0.15), (1, -0.65), (1, 0.65), (0, 0.15), (-1, 0.65)]],
    "chevron": [[(-0.9, 0.3), (0, -0.7), (0.9, 0.3), (0.9, 0.85), (0, -0.1), (-0.9, 0.85)]],
    "comb": [[(-1, -0.7), (1, -0.7), (1, 0.8), (0.7, 0.8), (0.7, -0.2), (0.15, -0.2), (0.15, 0.8),
              (-0.15, 0.8), (-0.15, -0.2), (-0.7, -0.2), (-0.7, 0.8), (-1, 0.8)]],
    "crescent": [_crescent()],
    "cross": [[(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
               (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)]],
    "crown": [[(-1, -0.6), (-0.5, 0.0), (0, -0.8), (0.5, 0.0), (1, -0.6), (0.8, 0.75),
               (-0.8, 0.75)]],
    "drop": [_drop()],
    "fish": [_fish()],
    "flower": [_wavy_circle(5, 0.55, 80)],
    "frame": [_SQUARE, [(0.55 * x, 0.55 * y) for x, y in _SQUARE]],
    "gear": [_gear(9), _ellipse(0, 0, 0.32, 0.32, 20)],
    "heart": [_heart()],
    "house": [[(0, -1), (0.95, -0.15), (0.7, -0.15), (0.7, 0.9), (-0.7, 0.9), (-0.7, -0.15),
               (-0.95, -0.15)]],
    "leaf": [_leaf()],
    "mushroom": [_mushroom()],
    "ring": [_ellipse(0, 0, 1, 1, 40), _ellipse(0, 0, 0.55, 0.55, 32)],
    "star": [_star(5, 0.42)],
    "triangle": [[(0, -0.9), (1, 0.8), (-1, 0.8)]],
}
# fmt: on

CLASS_NAMES: tuple[str, ...] = tuple(sorted(SHAPES))


def rasterize(rings: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Fill rings by the even-odd rule: a pixel is inside where its centre is.

    Args:
        rings: each of shape (N, 2), x and y in pixels; may leave the canvas.

    Returns:
        bool, shape (height, width).
    """
    crossings = np.zeros((height, width + 1), dtype=np.int32)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            # Rows whose centre, row + 0.5, lies in [y0, y1).
            first = max(int(np.ceil(y0 - 0.5)), 0)
            last = min(int(np.ceil(y1 - 0.5)), height)
            if first >= last:
                continue
            rows = np.arange(first, last)
            x = x0 + (x1 - x0) * ((rows + 0.5 - y0) / (y1 - y0))
            columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            np.add.at(crossings, (rows, columns), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
