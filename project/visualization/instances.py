"""Instances drawn on one picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer

from project.structures.detections import Detections

_COLORS = colormap(rgb=True, maximum=1)


def draw_instances(
    image: np.ndarray,
    masks: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: Sequence[str],
    color_indices: Sequence[int],
    scale: float = 1.0,
) -> np.ndarray:
    """Draw masks, boxes and labels with Detectron2's ``Visualizer``.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        masks: bool, shape (N, H, W).
        boxes_xyxy: pixels, shape (N, 4).
        labels: N texts.
        color_indices: N numbers; equal ones have the same colour in every picture.
        scale: draw on the enlarged picture, so that texts can be read.

    Returns:
        RGB, uint8, shape (scale * H, scale * W, 3).
    """
    visualizer = Visualizer(np.ascontiguousarray(image), scale=scale)
    for index in range(len(labels)):
        color = tuple(_COLORS[color_indices[index] % len(_COLORS)])
        if masks[index].any():
            # Unlike overlay_instances, this leaves the holes of a mask free.
            visualizer.draw_binary_mask(
                masks[index].astype(np.uint8), color=color, alpha=0.45, area_threshold=0
            )
        visualizer.draw_box(boxes_xyxy[index], edge_color=color)
        x0, y0 = boxes_xyxy[index, :2]
        visualizer.draw_text(
            labels[index],
            (max(x0, 0), max(y0, 0)),
            color="w",
            horizontal_alignment="left",
            font_size=9 / scale,  # which the visualizer multiplies with its scale
        )
    return visualizer.output.get_image()


def draw_detections(image: np.ndarray, detections: Detections, scale: float = 1.0) -> np.ndarray:
    """As :func:`draw_instances`, with names and scores, the less certain below."""
    order = range(len(detections))[::-1]
    masks = [detections.mask(index) for index in order]
    return draw_instances(
        image,
        np.array(masks, dtype=bool).reshape(-1, *detections.image_hw),
        detections.boxes_xyxy[::-1],
        [f"{detections.class_names[i]} {detections.scores[i]:.2f}" for i in order],
        detections.category_ids[::-1].tolist(),
        scale,
    )


def add_title(image: np.ndarray, title: str, height: int = 20) -> np.ndarray:
    """``image`` (RGB, uint8, (H, W, 3)) with a line of text on white above it."""
    bar = np.full((height, image.shape[1], 3), 255, dtype=np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(bar, title, (4, height - 6), font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, image])
