"""Instances drawn on one picture."""

from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from project.runtime.detections import Detections

_MASK_SHARE = 0.45  # of the colour in the pixels of a mask
_FONT_SIZE = 13  # pixels


def draw_instances(
    image: np.ndarray,
    masks: Iterable[np.ndarray],
    boxes_xyxy: np.ndarray,
    labels: Sequence[str],
    color_indices: Sequence[int],
    scale: float = 1.0,
) -> np.ndarray:
    """Draw masks, boxes and labels, the first ones at the bottom.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        masks: N of bool, shape (H, W); one is held at a time, for each is as large as the picture.
        boxes_xyxy: pixels, shape (N, 4).
        labels: N texts.
        color_indices: N numbers; equal ones have the same colour in every picture.
        scale: draw on the enlarged picture, so that texts can be read.

    Returns:
        RGB, uint8, shape (scale * H, scale * W, 3), at least one pixel.
    """
    size = max(int(image.shape[1] * scale), 1), max(int(image.shape[0] * scale), 1)
    drawn = cv2.resize(np.ascontiguousarray(image), size)
    thickness = max(1, round(max(size) / 600))
    for mask, box, color_index in zip(masks, boxes_xyxy, color_indices, strict=True):
        color = _color(color_index)
        if mask.any():
            _tint(drawn, mask, color, thickness)
        x0, y0, x1, y1 = (box * scale).round().astype(int).tolist()
        cv2.rectangle(drawn, (x0, y0), (x1, y1), color, thickness, cv2.LINE_AA)
    return _write_labels(drawn, labels, boxes_xyxy * scale)


def _color(index: int) -> tuple[int, int, int]:
    """One of many RGB colours; numbers that follow each other have hues far apart."""
    hue = round(180 * (index * 0.618034 % 1)) % 180  # by the golden ratio
    hsv = np.array([[[hue, 200, 255 - 60 * (index % 2)]]], dtype=np.uint8)
    return tuple(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist())


def _tint(drawn: np.ndarray, mask: np.ndarray, color: tuple[int, ...], thickness: int) -> None:
    """Lay a colour over the pixels of a mask, whose holes stay free, and draw its border."""
    size = drawn.shape[1], drawn.shape[0]
    pixels = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inside = pixels.view(bool)
    drawn[inside] = drawn[inside] * (1 - _MASK_SHARE) + np.array(color) * _MASK_SHARE
    contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, color, thickness, cv2.LINE_AA)


def _write_labels(drawn: np.ndarray, labels: Sequence[str], corners: np.ndarray) -> np.ndarray:
    """Texts in white on dark, at the upper left corners."""
    if not len(labels):
        return drawn
    picture = Image.fromarray(drawn)
    pen, font = ImageDraw.Draw(picture, "RGBA"), _font()
    for label, (x, y, *_) in zip(labels, corners, strict=True):
        place = max(int(x), 0) + 2, max(int(y), 0) + 1
        left, top, right, bottom = pen.textbbox(place, label, font=font)
        pen.rectangle((left - 2, top - 1, right + 1, bottom + 1), fill=(0, 0, 0, 150))
        pen.text(place, label, fill="white", font=font)
    return np.array(picture)


def draw_detections(image: np.ndarray, detections: Detections, scale: float = 1.0) -> np.ndarray:
    """As :func:`draw_instances`, with names and scores, the less certain below."""
    order = range(len(detections))[::-1]
    return draw_instances(
        image,
        (detections.mask(index) for index in order),
        detections.boxes_xyxy[::-1],
        [f"{detections.class_names[i]} {detections.scores[i]:.2f}" for i in order],
        detections.category_ids[::-1].tolist(),
        scale,
    )


def add_title(image: np.ndarray, title: str, height: int = 20) -> np.ndarray:
    """``image`` (RGB, uint8, (H, W, 3)) with a line of text on white above it."""
    bar = Image.new("RGB", (image.shape[1], height), "white")
    ImageDraw.Draw(bar).text((4, 2), title, fill="black", font=_font())
    return np.concatenate([np.array(bar), image])


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans: Latin, Greek and Cyrillic letters, where Pillow's is English."""
    # Here, for it takes a quarter of a second that every start would wait for; whoever only runs an
    # exported model need not have it.
    try:
        import matplotlib
    except ModuleNotFoundError:
        return ImageFont.load_default(_FONT_SIZE)
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", _FONT_SIZE)
