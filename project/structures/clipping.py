"""Boxes within their pictures, without waiting for the device."""

from collections.abc import Sequence

import torch


def box_limits(image_sizes: Sequence[tuple[int, int]], device: torch.device) -> torch.Tensor:
    """The largest coordinates of boxes in each picture: (width, height, width, height).

    Args:
        image_sizes: height and width of N pictures.

    Returns:
        float32, shape (N, 4).
    """
    return torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=torch.float32, device=device)


def clip_boxes(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """The part of each box within 0 and ``limits``, of any shapes that broadcast.

    ``Boxes.clip`` of Detectron2 also asks whether all boxes are finite, for which it waits.
    """
    return torch.minimum(boxes.clamp(min=0), limits)
