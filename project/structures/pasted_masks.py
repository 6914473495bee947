"""A picture's masks, kept as the small masks of their boxes, in ``Instances``."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from project.runtime.lazy_masks import LazyMasks

MAX_COLUMNS = 2**16  # of masks at a time, of 30 numbers of 8 bytes each


class PastedMasks:
    """The N masks of a picture that Detectron2's ``paste_masks_in_image`` would paste.

    Takes the place of a tensor in ``Instances.pred_masks``: indices, iteration, ``len``, ``to`` and
    ``numpy.asarray`` work. The pixels are made when asked for, by :class:`LazyMasks`.

    Args:
        probabilities: of each mask within its box. Float, shape (N, M, M).
        boxes: XYXY, pixels of the picture. Shape (N, 4).
        image_hw: height and width of the picture.
        threshold: where the interpolated probability is as large, the mask is.
        changes: see :class:`LazyMasks`.
    """

    def __init__(
        self,
        probabilities: torch.Tensor,
        boxes: torch.Tensor,
        image_hw: tuple[int, int],
        threshold: float = 0.5,
        changes: np.ndarray | None = None,
    ):
        self.probabilities = probabilities
        self.boxes = boxes
        self.image_hw = image_hw
        self.threshold = threshold
        self.changes = changes

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, item) -> "PastedMasks | torch.Tensor":
        """An ``int`` gives one mask, bool (H, W); a slice or a tensor gives some of them."""
        probabilities = self.probabilities[item]
        if probabilities.ndim == 2:
            return self[item : item + 1 or None].tensor[0]
        changes = self.changes
        if changes is not None:
            changes = changes[item.cpu().numpy() if isinstance(item, torch.Tensor) else item]
        return self._with(probabilities, self.boxes[item], changes)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype=dtype)

    def to(self, *args, **kwargs) -> "PastedMasks":
        """As ``torch.Tensor.to``; from a GPU they bring their changes, which it finds faster."""
        probabilities = self.probabilities.to(*args, **kwargs)
        changes = self.changes
        if self.probabilities.is_cuda and not probabilities.is_cuda and changes is None:
            changes = self.find_changes()
        return self._with(probabilities, self.boxes.to(*args, **kwargs), changes)

    def _with(
        self, probabilities: torch.Tensor, boxes: torch.Tensor, changes: np.ndarray | None
    ) -> "PastedMasks":
        return PastedMasks(probabilities, boxes, self.image_hw, self.threshold, changes)

    def numpy(self) -> LazyMasks:
        """The same masks without torch."""
        masks = self.to("cpu")
        arrays = (x.float().numpy() for x in (masks.probabilities, masks.boxes))
        return LazyMasks(*arrays, self.image_hw, self.threshold, masks.changes)

    @property
    def tensor(self) -> torch.Tensor:
        """All masks as pixels. bool, shape (N, H, W), on the device of the probabilities."""
        return torch.from_numpy(np.asarray(self)).to(self.probabilities.device)

    def find_changes(self) -> np.ndarray:
        """What ``pasted_changes`` finds for each mask, on the device, for many masks at once."""
        found = np.empty(len(self), dtype=object)
        boxes = self.boxes.double().cpu().numpy()
        cell_widths = (boxes[:, 2] - boxes[:, 0]) / self.probabilities.shape[-1]
        width = self.image_hw[1]
        first = np.floor(boxes[:, 0] - cell_widths).clip(0, width)
        last = np.ceil(boxes[:, 2] + cell_widths).clip(first, width)
        columns = np.stack([first, last], axis=1).astype(np.int64)
        groups = (last - first).cumsum() // MAX_COLUMNS
        for group in np.unique(groups):
            masks = np.flatnonzero(groups == group)
            some = slice(masks[0], masks[-1] + 1)
            found[some] = self._changes_of(some, columns[some])
        return found

    def _changes_of(self, some: slice, columns: np.ndarray) -> list[np.ndarray]:
        """Of ``some`` masks, which lie between these columns of the picture. Shape (n, 2).

        The steps are those of ``pasted_changes``, where they are explained.
        """
        probabilities = self.probabilities[some].double()
        device, side = probabilities.device, probabilities.shape[-1]
        (height, width), (x0, y0, x1, y1) = self.image_hw, self.boxes[some].double().unbind(dim=1)
        cell_widths, cell_heights = (x1 - x0) / side, (y1 - y0) / side

        ends = (columns[:, 1] - columns[:, 0]).cumsum()
        mask = np.repeat(np.arange(len(columns)), columns[:, 1] - columns[:, 0])
        column = np.arange(ends[-1]) + (columns[:, 1] - ends)[mask]
        mask, column = torch.from_numpy(mask).to(device), torch.from_numpy(column).to(device)
        position = (column + 0.5 - x0[mask]) / cell_widths[mask] - 0.5
        low = position.floor().clamp(-1, side - 1)
        table = F.pad(probabilities.transpose(1, 2), (1, 1, 1, 1)).flatten(0, 1)
        values = sum(
            table[mask * (side + 2) + (neighbour + 1).long()]
            * (1 - (position - neighbour).abs()).clamp(min=0)[:, None]
            for neighbour in (low, low + 1)
        )
        is_inside = values >= self.threshold
        index, row = (is_inside[:, 1:] != is_inside[:, :-1]).nonzero(as_tuple=True)
        mask, column = mask[index], column[index]
        above, below = values[index, row], values[index, row + 1]
        crossing = row - 1 + (self.threshold - above) / (below - above)
        crossing = y0[mask] + (crossing + 0.5) * cell_heights[mask] - 0.5
        begins = is_inside[index, row + 1]
        pixel = torch.where(begins, crossing.ceil(), crossing.floor() + 1).clamp(0, height)

        pixels_of_mask = height * width + 1  # the end of the last column is one
        changes = mask * pixels_of_mask + column * height + pixel.long()
        changes, times = changes.sort().values.unique_consecutive(return_counts=True)
        changes = changes[times % 2 == 1].cpu().numpy()
        starts = np.arange(len(columns)) * pixels_of_mask
        of_masks = np.split(changes, np.searchsorted(changes, starts[1:]))
        return [x - start for x, start in zip(of_masks, starts, strict=True)]
