"""Masks of whole pictures, kept as the small masks of their boxes, in ``Instances``."""

from collections.abc import Iterator

import numpy as np
import torch

from project.runtime.lazy_masks import LazyMasks


class PastedMasks:
    """The N masks of a picture that Detectron2's ``paste_masks_in_image`` would paste.

    Takes the place of a tensor in ``Instances.pred_masks``: indices, iteration, ``len``, ``to`` and
    ``numpy.asarray`` work. The pixels are made when asked for, by :class:`LazyMasks`.

    Args:
        probabilities: of each mask within its box. Float, shape (N, M, M).
        boxes: XYXY, pixels of the picture. Shape (N, 4).
        image_hw: height and width of the picture.
        threshold: where the interpolated probability is as large, the mask is.
    """

    def __init__(
        self,
        probabilities: torch.Tensor,
        boxes: torch.Tensor,
        image_hw: tuple[int, int],
        threshold: float = 0.5,
    ):
        self.probabilities = probabilities
        self.boxes = boxes
        self.image_hw = image_hw
        self.threshold = threshold

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, item) -> "PastedMasks | torch.Tensor":
        """An ``int`` gives one mask, bool (H, W); a slice or a tensor gives some of them."""
        chosen = self._with(self.probabilities[item], self.boxes[item])
        if chosen.probabilities.ndim == 3:
            return chosen
        return self._with(chosen.probabilities[None], chosen.boxes[None]).tensor[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def to(self, *args, **kwargs) -> "PastedMasks":
        """As ``torch.Tensor.to``."""
        return self._with(self.probabilities.to(*args, **kwargs), self.boxes.to(*args, **kwargs))

    def _with(self, probabilities: torch.Tensor, boxes: torch.Tensor) -> "PastedMasks":
        return PastedMasks(probabilities, boxes, self.image_hw, self.threshold)

    def numpy(self) -> LazyMasks:
        """The same masks without torch."""
        arrays = (x.float().cpu().numpy() for x in (self.probabilities, self.boxes))
        return LazyMasks(*arrays, self.image_hw, self.threshold)

    @property
    def tensor(self) -> torch.Tensor:
        """All masks as pixels. bool, shape (N, H, W), on the device of the probabilities."""
        return torch.from_numpy(np.asarray(self)).to(self.probabilities.device)
