"""Masks of whole pictures, kept as the small masks of their boxes."""

from collections.abc import Iterator

import numpy as np
import torch
from pycocotools import mask as coco_mask

from project.data.segmentation import decode_segmentation


class PastedMasks:
    """The N masks of a picture that Detectron2's ``paste_masks_in_image`` would paste.

    Kept as what the mask head gives, for most are written as RLE and never seen as pixels: 100
    masks of 800 x 1066 are 85 MB, their probabilities 0.3. Takes the place of a tensor in
    ``Instances.pred_masks``: indices, iteration, ``len``, ``to`` and ``numpy.asarray`` work.

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
        return np.asarray(self.tensor.cpu().numpy(), dtype=dtype)

    def to(self, *args, **kwargs) -> "PastedMasks":
        """As ``torch.Tensor.to``."""
        return self._with(self.probabilities.to(*args, **kwargs), self.boxes.to(*args, **kwargs))

    def _with(self, probabilities: torch.Tensor, boxes: torch.Tensor) -> "PastedMasks":
        return PastedMasks(probabilities, boxes, self.image_hw, self.threshold)

    @property
    def tensor(self) -> torch.Tensor:
        """All masks as pixels. bool, shape (N, H, W), on the device of the probabilities."""
        rles = self.to_rle()
        masks = np.zeros((len(rles), *self.image_hw), dtype=bool)
        for mask, rle in zip(masks, rles, strict=True):
            mask[:] = decode_segmentation(rle, *self.image_hw)
        return torch.from_numpy(masks).to(self.probabilities.device)

    def to_rle(self) -> list[dict]:
        """All masks as COCO's compressed RLE, ``{"size": [H, W], "counts": str}``."""
        probabilities = self.probabilities.double().cpu().numpy()
        boxes = self.boxes.double().cpu().numpy()
        return [
            _paste(probability, box, self.image_hw, self.threshold)
            for probability, box in zip(probabilities, boxes, strict=True)
        ]


def _paste(
    probabilities: np.ndarray, box: np.ndarray, image_hw: tuple[int, int], threshold: float
) -> dict:
    """The RLE of one mask, whose runs are found without looking at a pixel.

    In a column of the picture, the bilinear interpolation is linear from one row of
    ``probabilities`` to the next, and falls to zero within one row beyond the first and the last
    (``grid_sample`` with zeros outside, ``align_corners=False``). So runs begin and end where these
    lines cross the threshold.
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
    changes = changes[times % 2 == 1]
    counts = np.diff(changes, prepend=0, append=height * width).tolist()
    if counts[-1] == 0 and len(counts) > 1:
        counts.pop()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
