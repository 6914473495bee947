"""One generated picture: a textured background, objects that cover one another, their masks."""

from dataclasses import dataclass

import numpy as np

from project.data.synthetic.shapes import CLASS_NAMES, SHAPES, rasterize, rotation
from project.data.synthetic.textures import BACKGROUNDS, OBJECT_PATTERNS, hsv_to_rgb

SPLITS = ("train", "test")
MIN_SIZE, MAX_SIZE = 16, 200  # longer side of an object, pixels
MAX_OBJECTS = 5
EMPTY_SHARE = 0.04
# An object may be hidden, or cut by the border, to this share of its area, and no further: what is
# seen of an object is always annotated.
MIN_VISIBLE = 0.45

# Class -> (pattern, hue of the first colour, hue of the second), in the order of CLASS_NAMES.
_PATTERN_NAMES = tuple(OBJECT_PATTERNS)
_LOOKS = {
    name: (
        _PATTERN_NAMES[index % len(_PATTERN_NAMES)],
        (index * 126) % 360,
        (index * 126 + 150 + 30 * (index % 3)) % 360,
    )
    for index, name in enumerate(CLASS_NAMES)
}
# Backgrounds are paler than objects; their hues differ between the splits.
_BACKGROUND_HUES = {"train": (20, 200), "test": (200, 380)}


@dataclass(frozen=True)
class Scene:
    """A picture and its instances, the last one on top.

    Attributes:
        image: RGB, uint8, shape (H, W, 3).
        masks: the visible part of each instance, bool, shape (N, H, W).
        category_ids: 1..20, int64, shape (N,).
        background: name of the background's texture.
    """

    image: np.ndarray
    masks: np.ndarray
    category_ids: np.ndarray
    background: str


def render_scene(seed: int, split: str, index: int) -> Scene:
    """The picture ``index`` of a split; it depends on nothing but these three."""
    rng = np.random.RandomState([seed, SPLITS.index(split), index])
    long_side, short_side = rng.randint(288, 353), rng.randint(224, 273)
    height, width = (short_side, long_side) if rng.randint(3) else (long_side, short_side)
    canvas, background = _background(rng, split, height, width)

    wanted = 0 if rng.random_sample() < EMPTY_SHARE else rng.randint(1, MAX_OBJECTS + 1)
    masks: list[np.ndarray] = []
    full_areas: list[int] = []
    category_ids: list[int] = []
    for _ in range(wanted):
        category = rng.randint(len(CLASS_NAMES))
        size = rng.randint(MIN_SIZE, MAX_SIZE + 1)
        # Some tries for a place where it hides no other object too much, at ever smaller sizes.
        for _ in range(6):
            placed = _place(rng, CLASS_NAMES[category], size, height, width)
            if placed is not None and all(
                (mask & ~placed.mask).sum() >= MIN_VISIBLE * area
                for mask, area in zip(masks, full_areas, strict=True)
            ):
                break
            size = max(MIN_SIZE, size * 4 // 5)
        else:
            continue
        _paint(rng, canvas, placed, CLASS_NAMES[category])
        masks = [mask & ~placed.mask for mask in masks] + [placed.mask]
        full_areas.append(placed.full_area)
        category_ids.append(category + 1)

    canvas += rng.randint(-6, 7, size=canvas.shape)
    return Scene(
        image=np.clip(np.floor(canvas + 0.5), 0, 255).astype(np.uint8),
        masks=np.array(masks, dtype=bool).reshape(-1, height, width),
        category_ids=np.array(category_ids, dtype=np.int64),
        background=background,
    )


@dataclass(frozen=True)
class _Placed:
    """A silhouette on the canvas: its pixels, and its frame for the pattern."""

    mask: np.ndarray
    full_area: int
    centre: tuple[float, float]
    axes: tuple[float, float, float, float]


def _place(rng, name: str, size: int, height: int, width: int) -> _Placed | None:
    """Put a silhouette of longer side ``size`` somewhere; None where too much is cut off."""
    cosine, sine = rotation((rng.randint(-20, 21)) / 100)  # up to +-23 degrees
    mirror = -1.0 if rng.randint(2) else 1.0
    aspect = rng.randint(80, 101) / 100
    rings = [np.array(ring, dtype=np.float64) * (mirror, aspect) for ring in SHAPES[name]]
    rings = [
        np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=1)
        for x, y in (ring.T for ring in rings)
    ]
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    scale = size / (high - low).max()
    extent = (high - low) * scale
    margin = size // 4
    left = rng.randint(-margin, max(int(width - extent[0]) + margin, 1 - margin))
    top = rng.randint(-margin, max(int(height - extent[1]) + margin, 1 - margin))
    centre = (left - low[0] * scale, top - low[1] * scale)

    # Rasterise on a canvas of its own, which holds all of it, to know how much is cut off.
    own_height, own_width = int(extent[1]) + 2, int(extent[0]) + 2
    own = rasterize([(ring - low) * scale for ring in rings], own_height, own_width)
    full_area = int(own.sum())
    mask = np.zeros((height, width), dtype=bool)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + own_height, height), min(left + own_width, width)
    if y1 <= y0 or x1 <= x0:
        return None
    mask[y0:y1, x0:x1] = own[y0 - top : y1 - top, x0 - left : x1 - left]
    if mask.sum() < MIN_VISIBLE * full_area:
        return None
    axes = (mirror * cosine / scale, mirror * sine / scale, -sine / scale, cosine / scale)
    return _Placed(mask, full_area, centre, axes)


def _paint(rng, canvas: np.ndarray, placed: _Placed, name: str) -> None:
    """Fill the silhouette with its class's pattern in its class's colours, edge darkened."""
    pattern, first_hue, second_hue = _LOOKS[name]
    first = hsv_to_rgb(
        first_hue + rng.randint(-12, 13), rng.randint(65, 96) / 100, rng.randint(60, 96) / 100
    )
    second = hsv_to_rgb(
        second_hue + rng.randint(-12, 13), rng.randint(50, 91) / 100, rng.randint(45, 91) / 100
    )
    rows, columns = np.nonzero(placed.mask)
    x, y = columns + 0.5 - placed.centre[0], rows + 0.5 - placed.centre[1]
    a, b, c, d = placed.axes
    u, v = a * x + b * y, c * x + d * y
    weight = OBJECT_PATTERNS[pattern](u, v)[:, None]
    light = 1 + rng.randint(-15, 16) / 100 * u[:, None]
    colours = ((1 - weight) * first + weight * second) * light

    padded = np.pad(placed.mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge = ~inner[rows, columns]
    colours[edge] *= 0.55
    canvas[rows, columns] = colours


def _background(rng, split: str, height: int, width: int) -> tuple[np.ndarray, str]:
    names = sorted(BACKGROUNDS[split])
    name = names[rng.randint(len(names))]
    low, high = _BACKGROUND_HUES[split]
    colours = [
        hsv_to_rgb(rng.randint(low, high), rng.randint(5, 36) / 100, rng.randint(30, 91) / 100)
        for _ in range(2)
    ]
    y = np.arange(height, dtype=np.float64)[:, None]
    x = np.arange(width, dtype=np.float64)[None, :]
    weight = np.broadcast_to(BACKGROUNDS[split][name](rng, y, x), (height, width))[..., None]
    return (1 - weight) * colours[0] + weight * colours[1], name
