"""The pictures, objects and boxes that the recorded reference was computed on."""

import numpy as np

from project.data.synthetic import render_scene

SEED = 5
NUM_CLASSES = 20
MEAN = (123.68, 116.779, 103.939)
STD = (58.393, 57.12, 57.375)
_SCENES = ((3, (150, 187)), (6, (166, 131)))  # index, height and width of the part that is used
NUM_PICTURES = len(_SCENES)


def picture(index: int) -> np.ndarray:
    """RGB, uint8, shape (H, W, 3)."""
    scene, (height, width) = _SCENES[index]
    return render_scene(SEED, "test", scene).image[:height, :width]


def network_input(index: int) -> np.ndarray:
    """The picture, normalised, with zeros to the right and below. float32, shape (1, 3, H', W')."""
    image = picture(index)
    height, width = image.shape[:2]
    padded = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), dtype=np.float32)
    padded[:height, :width] = (image.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return padded.transpose(2, 0, 1)[None].copy()


def sizes(index: int) -> tuple[int, int, int, int, int, int]:
    """Height and width of the original picture (said to be larger), of this one, and padded."""
    height, width = picture(index).shape[:2]
    return (2 * height + 1, 2 * width, height, width, *network_input(index).shape[2:])


def boxes(index: int, number: int = 32) -> np.ndarray:
    """Boxes of every size, some beyond the picture. XYXY, float32, shape (number, 4)."""
    height, width = picture(index).shape[:2]
    random = np.random.RandomState([SEED, 1, index])
    sides = np.exp(random.uniform(np.log(3), np.log(250), (number, 2)))
    centres = random.uniform(0, 1, (number, 2)) * (width, height)
    return _quarter_pixels(np.concatenate([centres - sides / 2, centres + sides / 2], axis=1))


def objects(index: int) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
    """Objects to train on.

    Returns:
        For each its polygons, arrays of x, y, x, y, ...; boxes XYXY, float32, (N, 4); classes (N,).
    """
    height, width = picture(index).shape[:2]
    random = np.random.RandomState([SEED, 2, index])
    polygons = []
    for number in range(3 + index):
        parts = 2 if number == 1 else 1
        polygons.append([_star(random, width, height) for _ in range(parts)])
    corners = [np.concatenate(parts).reshape(-1, 2) for parts in polygons]
    extents = np.array([[*c.min(axis=0), *c.max(axis=0)] for c in corners], dtype=np.float32)
    return polygons, extents, random.randint(NUM_CLASSES, size=len(polygons))


def _star(random: np.random.RandomState, width: int, height: int) -> np.ndarray:
    radius = np.array(random.uniform(0.06, 0.2, 2)) * (width, height)
    centre = radius + random.uniform(0, 1, 2) * ((width, height) - 2 * radius)
    angles = np.arange(12) * (np.pi / 6)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.uniform(0.7, 1, (12, 1))
    return _quarter_pixels(centre + radius * points).astype(np.float64).reshape(-1)


def proposals(index: int) -> np.ndarray:
    """Boxes around the objects and elsewhere, in the picture. XYXY, float32, shape (R, 4)."""
    height, width = picture(index).shape[:2]
    random = np.random.RandomState([SEED, 3, index])
    around = [
        box + random.normal(0, 0.12, 4) * np.tile(box[2:] - box[:2], 2)
        for box in objects(index)[1]
        for _ in range(5)
    ]
    everywhere = np.concatenate([around, boxes(index, 20) + random.uniform(-4, 4, (20, 4))])
    clipped = np.clip(everywhere, 0, [width, height, width, height])
    return _quarter_pixels(clipped[(clipped[:, 2:] - clipped[:, :2]).min(axis=1) >= 2])


def _quarter_pixels(values: np.ndarray) -> np.ndarray:
    return (np.round(values * 4) / 4).astype(np.float32)
