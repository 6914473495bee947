"""What a detector finds in one picture, without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from project.runtime.lazy_masks import LazyMasks


@dataclass(frozen=True, eq=False)
class Detections:
    """The N objects found in a picture, the most certain first.

    ``detections[3:5]``, or an array of indices or truth values, gives some of them.

    Attributes:
        boxes_xyxy: corners in pixels of the picture. float32, shape (N, 4).
        scores: in [0, 1]. float32, shape (N,).
        category_ids: as in the JSON that was trained on. int64, shape (N,).
        class_names: N names of the categories.
        masks: ``masks[i]`` is bool, shape (H, W); ``numpy.asarray(masks)`` (N, H, W). None where
            the model has no mask head.
        image_hw: height and width of the picture.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    category_ids: np.ndarray
    class_names: tuple[str, ...]
    masks: LazyMasks | np.ndarray | None
    image_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, item: slice | Sequence | np.ndarray) -> "Detections":
        # As indices, because names are no array, and masks none yet.
        indices = np.arange(len(self))[list(item) if isinstance(item, Sequence) else item]
        if indices.ndim != 1:
            raise TypeError(f"choose detections with a slice or an array, not with {item!r}")
        return Detections(
            self.boxes_xyxy[indices],
            self.scores[indices],
            self.category_ids[indices],
            tuple(self.class_names[index] for index in indices),
            None if self.masks is None else self.masks[indices],
            self.image_hw,
        )

    def __iter__(self) -> Iterator["Detections"]:
        return (self[index : index + 1] for index in range(len(self)))

    def mask(self, index: int) -> np.ndarray:
        """The pixels of one object: of its mask, or of its box where there are no masks.

        Returns:
            bool, shape (H, W).
        """
        if self.masks is not None:
            return self.masks[index]
        mask = np.zeros(self.image_hw, dtype=bool)
        x0, y0, x1, y1 = self.boxes_xyxy[index].round().astype(int).clip(0)
        mask[y0:y1, x0:x1] = True
        return mask
