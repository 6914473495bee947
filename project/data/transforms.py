"""Detectron2's resizing and flipping, done by OpenCV; pictures are resized by Pillow if asked for.

Coordinates, and pixels of masks and of flipped pictures, are Detectron2's to the bit.
"""

import cv2
import numpy as np
from detectron2.data import transforms as T

from project.errors import UserError

RESIZE_BACKENDS = ("pillow", "opencv")


class ResizeTransform(T.ResizeTransform):
    """Detectron2's ``ResizeTransform``, with a choice of who interpolates pictures.

    OpenCV's bilinear does not antialias, Pillow's does. mmdetection has the first, Detectron2 the
    second, and models trained with the one lose a little with the other.

    Args:
        backend: "opencv" or "pillow".

    Raises:
        UserError: nothing would be left of the picture.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, backend: str):
        if min(new_h, new_w) < 1:
            raise UserError(
                f"a picture of {w} x {h} pixels is too narrow: resized to {new_w} x {new_h}, as"
                " INPUT and TEST.AUG say, nothing is left of it"
            )
        super().__init__(h, w, new_h, new_w)
        self.backend = backend

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """
        Args:
            img: uint8 or float, shape (H, W) or (H, W, C).
            interp: Pillow's constant; None for the bilinear one of pictures.

        Returns:
            The same dtype, shape (new_h, new_w) or (new_h, new_w, C).
        """
        if interp is not None or self.backend == "pillow":
            return super().apply_image(img, interp)
        resized = cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)
        # OpenCV drops an axis of length 1.
        return resized.reshape(self.new_h, self.new_w, *img.shape[2:])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """The value of the nearest pixel. ``segmentation``: uint8, shape (H, W)."""
        # The same as Pillow's, and as OpenCV's INTER_NEAREST_EXACT; but most of a mask is empty.
        x, y, width, height = cv2.boundingRect(segmentation)
        rows, columns = _nearest(self.h, self.new_h), _nearest(self.w, self.new_w)
        first_row, last_row = np.searchsorted(rows, [y, y + height])
        first_column, last_column = np.searchsorted(columns, [x, x + width])
        resized = np.zeros((self.new_h, self.new_w), dtype=segmentation.dtype)
        part = segmentation[:, columns[first_column:last_column]]
        resized[first_row:last_row, first_column:last_column] = part[rows[first_row:last_row]]
        return resized

    def inverse(self) -> "ResizeTransform":
        """The transform back to the original size."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.backend)


def _nearest(size: int, new_size: int) -> np.ndarray:
    """The source index of each target index. int64, shape (new_size,)."""
    # By OpenCV, so that ties between two pixels are broken as it and Pillow do.
    indices = np.arange(size, dtype=np.float32)[None]
    nearest = cv2.resize(indices, (new_size, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return nearest.reshape(-1).astype(np.int64)


class HFlipTransform(T.HFlipTransform):
    """Detectron2's; its result is no view that runs backwards, which all that follows copies."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``img``: uint8 or float, shape (H, W) or (H, W, C)."""
        return cv2.flip(img, 1).reshape(img.shape)


class WithOpenCV(T.Augmentation):
    """Any augmentation of Detectron2, whose resizing and flipping OpenCV does.

    Args:
        augmentation: what draws the sizes.
        resize_backend: of pictures.
    """

    def __init__(self, augmentation: T.Augmentation, resize_backend: str):
        super().__init__()
        self.augmentation = augmentation
        self.resize_backend = resize_backend

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """See ``Augmentation``."""
        transform = self.augmentation.get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            size = (transform.h, transform.w, transform.new_h, transform.new_w)
            return ResizeTransform(*size, self.resize_backend)
        if isinstance(transform, T.HFlipTransform):
            return HFlipTransform(transform.width)
        return transform

    def __repr__(self) -> str:
        return repr(self.augmentation)
