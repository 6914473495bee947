"""A picture's masks without torch, and without their pixels until someone looks."""

from collections.abc import Iterator

import cv2
import numpy as np


class LazyMasks:
    """N masks of a picture, kept as the small masks of their boxes.

    Most masks are written as RLE and never seen as pixels: 100 of 800 x 1066 are 85 MB, their
    probabilities 0.3. ``masks[3]``, iteration, ``len`` and ``numpy.asarray`` give pixels.

    Args:
        probabilities: of each mask within its box. Float, shape (N, M, M).
        boxes_xyxy: pixels of the picture. Float, shape (N, 4).
        image_hw: height and width of the picture.
        threshold: where the interpolated probability is as large, the mask is.
        changes: what :func:`pasted_changes` gives for each mask, if it is known. Object array (N,).
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        boxes_xyxy: np.ndarray,
        image_hw: tuple[int, int],
        threshold: float = 0.5,
        changes: np.ndarray | None = None,
    ):
        self.probabilities = probabilities
        self.boxes_xyxy = boxes_xyxy
        self.image_hw = image_hw
        self.threshold = threshold
        self.changes = changes

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, item) -> "LazyMasks | np.ndarray":
        """An integer gives one mask, bool (H, W); a slice or an array gives some of them."""
        probabilities, boxes = self.probabilities[item], self.boxes_xyxy[item]
        if probabilities.ndim == 2:
            return _pixels(self._runs(item), self.image_hw)
        changes = None if self.changes is None else self.changes[item]
        return LazyMasks(probabilities, boxes, self.image_hw, self.threshold, changes)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        masks = np.zeros((len(self), *self.image_hw), dtype=bool)
        for index, mask in enumerate(self):
            masks[index] = mask
        return np.asarray(masks, dtype=dtype)

    def to_rle(self) -> list[dict]:
        """All masks as COCO's compressed RLE, ``{"size": [H, W], "counts": str}``.

        Needs pycocotools.
        """
        from pycocotools import mask as coco_mask  # here, for the rest does without it

        size = list(self.image_hw)
        rles = []
        for index in range(len(self)):
            runs = {"size": size, "counts": self._runs(index)}
            text = coco_mask.frPyObjects(runs, *size)["counts"]
            rles.append({"size": size.copy(), "counts": text.decode("ascii")})
        return rles

    def _runs(self, index: int) -> list[int]:
        """The run lengths of a mask, column by column, outside first."""
        if self.changes is not None:
            changes = self.changes[index]
        else:
            probabilities, box = self.probabilities[index], self.boxes_xyxy[index]
            changes = pasted_changes(
                probabilities.astype(np.float64),
                box.astype(np.float64),
                self.image_hw,
                self.threshold,
            )
        height, width = self.image_hw
        counts = np.diff(changes, prepend=0, append=height * width).tolist()
        if counts[-1] == 0 and len(counts) > 1:
            counts.pop()
        return counts


def pasted_changes(
    probabilities: np.ndarray, box: np.ndarray, image_hw: tuple[int, int], threshold: float
) -> np.ndarray:
    """Where one pasted mask begins, ends, begins again, ...; no pixel is looked at.

    In a column of the picture, the bilinear interpolation is linear from one row of
    ``probabilities`` to the next, and falls to zero within one row beyond the first and the last
    (``grid_sample`` with zeros outside, ``align_corners=False``). So runs begin and end where these
    lines cross the threshold.

    Args:
        probabilities: float64, shape (M, M).
        box: XYXY in pixels of the picture, float64, shape (4,).

    Returns:
        Pixels, counted column by column, in order; the number of all pixels is the end of the last
        column. int64, shape (C,).
    """
    height, width = image_hw
    side = len(probabilities)
    x0, y0, x1, y1 = box
    cell_width, cell_height = (x1 - x0) / side, (y1 - y0) / side
    first = min(max(int(np.floor(x0 - cell_width)), 0), width)
    last = max(min(int(np.ceil(x1 + cell_width)), width), first)

    positions = (np.arange(first, last) + 0.5 - x0) / cell_width - 0.5  # in columns of the mask
    weights = np.maximum(1 - np.abs(positions[:, None] - np.arange(side)), 0)
    values = np.zeros((last - first, side + 2))
    values[:, 1:-1] = weights @ probabilities.T
    is_inside = values >= threshold
    column, row = np.nonzero(is_inside[:, 1:] != is_inside[:, :-1])
    above, below = values[column, row], values[column, row + 1]
    crossing = row - 1 + (threshold - above) / (below - above)  # in rows of the mask
    crossing = y0 + (crossing + 0.5) * cell_height - 0.5  # in rows of the picture
    begins = is_inside[column, row + 1]
    pixel = np.where(begins, np.ceil(crossing), np.floor(crossing) + 1).clip(0, height)

    changes = (first + column) * height + pixel.astype(np.int64)
    # Where a run has no pixel, or ends at the foot of a column and goes on at the head of the next.
    changes, times = np.unique(changes, return_counts=True)
    return changes[times % 2 == 1]


def _pixels(runs: list[int], image_hw: tuple[int, int]) -> np.ndarray:
    """bool, shape (H, W)."""
    height, width = image_hw
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return cv2.transpose(columns.view(np.uint8)).view(bool).reshape(height, width)
