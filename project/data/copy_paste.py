"""Objects of one picture pasted into another."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from project.data.mapper import mask_boxes


class CopyPaste:
    """A mapper that pastes objects of a second picture, at random.

    "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (Ghiasi et
    al. 2021), section 3, without blending, which made no difference there: a random part of the
    objects of a random picture, both augmented before. Where the two differ in size, the smaller
    one lies somewhere in the larger one.

    Args:
        mapper: from a record to a picture with bit-masks.
        records: where the second picture is taken from.
        probability: of pasting into a picture.
    """

    def __init__(
        self, mapper: Callable[[Mapping], dict], records: Sequence[Mapping], probability: float
    ):
        self.mapper = mapper
        self.records = records
        self.probability = probability

    def __call__(self, record: Mapping) -> dict:
        """As ``mapper``; draws from Python's global generator."""
        picture = self.mapper(record)
        if random.random() >= self.probability:
            return picture
        source = self.mapper(random.choice(self.records))
        objects = source["instances"]
        if len(objects) == 0:
            return picture
        number = random.randint(1, len(objects))
        chosen = sorted(random.sample(range(len(objects)), number))
        top, left = (
            random.randint(min(0, large - small), max(0, large - small))
            for large, small in zip(
                picture["image"].shape[1:], source["image"].shape[1:], strict=True
            )
        )
        image, instances = paste(
            picture["image"],
            picture["instances"],
            source["image"],
            objects[torch.tensor(chosen)],
            top,
            left,
        )
        return {**picture, "image": image, "instances": instances}


def paste(
    image: torch.Tensor,
    instances: Instances,
    source: torch.Tensor,
    objects: Instances,
    top: int,
    left: int,
) -> tuple[torch.Tensor, Instances]:
    """Paste ``objects`` of ``source`` in front of ``instances``.

    What is covered wholly goes, and so do objects that would lie outside. Boxes become the tight
    ones of the masks for what was pasted or partly covered.

    Args:
        image: shape (3, H, W).
        instances: with ``gt_boxes``, ``gt_classes`` and ``gt_masks`` (bit-masks).
        source: shape (3, h, w).
        objects: as ``instances``.
        top, left: where the corner of ``source`` lies in ``image``; may be negative.

    Returns:
        New picture, shape (3, H, W), and its instances: first the old ones, then those pasted.
    """
    height, width = image.shape[1:]
    y0, x0 = min(max(top, 0), height), min(max(left, 0), width)
    y1 = max(min(top + source.shape[1], height), y0)
    x1 = max(min(left + source.shape[2], width), x0)
    to_source = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    pasted = np.zeros((len(objects), height, width), dtype=bool)
    pasted[:, y0:y1, x0:x1] = objects.gt_masks.tensor.numpy()[:, *to_source]
    in_front = pasted.any(axis=0)
    result = image.numpy().copy()
    np.copyto(
        result[:, y0:y1, x0:x1],
        source.numpy()[:, *to_source],
        where=in_front[y0:y1, x0:x1],
    )

    old_masks = instances.gt_masks.tensor.numpy()
    is_covered = (old_masks & in_front).any(axis=(1, 2))
    masks = np.concatenate([old_masks & ~in_front, pasted])
    boxes = torch.cat([instances.gt_boxes.tensor, objects.gt_boxes.tensor])
    is_new = np.concatenate([is_covered, np.ones(len(objects), dtype=bool)])
    boxes[torch.from_numpy(is_new)] = torch.from_numpy(mask_boxes(masks[is_new])).float()

    combined = Instances((height, width))
    combined.gt_boxes = Boxes(boxes)
    combined.gt_classes = torch.cat([instances.gt_classes, objects.gt_classes])
    combined.gt_masks = BitMasks(torch.from_numpy(masks))
    is_left = torch.from_numpy(masks.any(axis=(1, 2)))
    return torch.from_numpy(result), combined[is_left]
