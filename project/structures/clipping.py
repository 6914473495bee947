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
    rows = [(width, height, width, height) for height, width in image_sizes]
    # From other memory than pinned one, the copy to a GPU would wait for what it is computing.
    limits = torch.tensor(rows, dtype=torch.float32, pin_memory=device.type == "cuda")
    return limits.to(device, non_blocking=True)


def clip_boxes(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """The part of each box within 0 and ``limits``, of any shapes that broadcast.

    ``Boxes.clip`` of Detectron2 also asks whether all boxes are finite, for which it waits.
    """
    return torch.minimum(boxes.clamp(min=0), limits)
