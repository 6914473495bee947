"""Detectron2's resizing and flipping, done by OpenCV; pictures are resized by Pillow if asked for.

Coordinates, and pixels of masks and of flipped pictures, are Detectron2's to the bit.
"""

from collections.abc import Sequence

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

    def inverse(self) -> "ResizeTransform":
        """The transform back to the original size."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.backend)


_KEEPS_PLACES = (T.ColorTransform, T.BlendTransform, T.NoOpTransform)


def seen_from(
    transforms: Sequence[T.Transform], image_hw: tuple[int, int], file_hw: tuple[int, int]
) -> T.TransformList:
    """Transforms of a picture that was decoded smaller, for the coordinates of its file.

    Args:
        transforms: of the picture of the size ``image_hw``; colours are not kept.
        image_hw: as it was decoded.
        file_hw: as it would be.
    """
    kept = [transform for transform in transforms if not isinstance(transform, _KEEPS_PLACES)]
    new_hw = image_hw
    if kept and isinstance(kept[0], T.ResizeTransform):
        # In one go, so that masks are given the nearest pixel of the file.
        resize = kept.pop(0)
        new_hw = resize.new_h, resize.new_w
    return T.TransformList([T.ResizeTransform(*file_hw, *new_hw), *kept])


def index_maps(
    transforms: Sequence[T.Transform], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, list[T.Transform]]:
    """What transforms do to a mask, where they choose rows and columns of it.

    Resizing (a mask is given the value of the nearest pixel), cropping and flipping do, and what
    changes colours only leaves masks alone.

    Args:
        transforms: in the order in which they are applied.
        height, width: of the mask before.

    Returns:
        The rows and the columns that are left of it, int64, ascending or descending; and the
        transforms that are to be applied to those, from the first one on that does anything else.
    """
    rows, columns = np.arange(height), np.arange(width)
    for number, transform in enumerate(transforms):
        if isinstance(transform, T.ResizeTransform):
            rows = rows[_nearest(len(rows), transform.new_h)]
            columns = columns[_nearest(len(columns), transform.new_w)]
        elif isinstance(transform, T.CropTransform):
            rows = rows[transform.y0 : transform.y0 + transform.h]
            columns = columns[transform.x0 : transform.x0 + transform.w]
        elif isinstance(transform, T.HFlipTransform):
            columns = columns[::-1]
        elif isinstance(transform, T.VFlipTransform):
            rows = rows[::-1]
        elif not isinstance(transform, _KEEPS_PLACES):
            return rows, columns, list(transforms[number:])
    return rows, columns, []


def _nearest(size: int, new_size: int) -> np.ndarray:
    """The source index of each target index. int64, shape (new_size,)."""
    # By OpenCV, which breaks ties between two pixels as Pillow does, and so Detectron2.
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
