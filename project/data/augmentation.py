"""What is done to a picture before the model sees it: resizing and flipping."""

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from project.errors import require_choice

RESIZE_BACKENDS = ("pillow", "opencv")


class OpenCVResizeTransform(T.ResizeTransform):
    """Detectron2's ``ResizeTransform`` with OpenCV's bilinear, which does not antialias.

    mmdetection resizes so, and models trained with the one lose a little with the other.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """
        Args:
            img: uint8 or float, shape (H, W) or (H, W, C).
            interp: Pillow's constant for masks, None for pictures.

        Returns:
            The same dtype, shape (new_h, new_w) or (new_h, new_w, C).
        """
        if interp is not None:
            # Masks: Pillow's nearest neighbour is centred, OpenCV's is off by half a pixel.
            return super().apply_image(img, interp)
        resized = cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)
        # OpenCV drops an axis of length 1.
        return resized.reshape(self.new_h, self.new_w, *img.shape[2:])

    def inverse(self) -> "OpenCVResizeTransform":
        """The transform back to the original size."""
        return OpenCVResizeTransform(self.new_h, self.new_w, self.h, self.w)


class OpenCVResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's ``ResizeShortestEdge`` with OpenCV's bilinear."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """See ``Augmentation``."""
        transform = super().get_transform(image)
        if not isinstance(transform, T.ResizeTransform):
            return transform  # size 0 asks for none
        return OpenCVResizeTransform(transform.h, transform.w, transform.new_h, transform.new_w)


def build_mapper(cfg: CfgNode, is_train: bool) -> DatasetMapper:
    """Detectron2's ``DatasetMapper``, resizing with ``cfg.INPUT.RESIZE_BACKEND``."""
    require_choice("INPUT.RESIZE_BACKEND", cfg.INPUT.RESIZE_BACKEND, RESIZE_BACKENDS)
    arguments = DatasetMapper.from_config(cfg, is_train)
    if cfg.INPUT.RESIZE_BACKEND == "opencv":
        arguments["augmentations"] = [_with_opencv(a) for a in arguments["augmentations"]]
    return DatasetMapper(**arguments)


def _with_opencv(augmentation: T.Augmentation) -> T.Augmentation:
    if not isinstance(augmentation, T.ResizeShortestEdge):
        return augmentation
    return OpenCVResizeShortestEdge(
        augmentation.short_edge_length,
        augmentation.max_size,
        "range" if augmentation.is_range else "choice",
    )
