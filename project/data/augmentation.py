"""What is done to pictures and masks before the model sees them, as a config says."""

from functools import partial

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from torchvision.transforms import v2

from project.data.transforms import RESIZE_BACKENDS, WithOpenCV
from project.errors import UserError, require_choice


class ColorJitter(T.Augmentation):
    """Brightness, contrast, saturation and hue at random, as torchvision's ``ColorJitter``.

    After "Some improvements on deep convolutional neural network based image classification"
    (Howard 2013) and SSD (Liu et al. 2016).

    Args:
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - x), 1 + x].
        hue: turns of the colour circle are drawn from [-x, x]; at most 0.5.
        image_format: of the pictures, "RGB" or "BGR".
    """

    def __init__(
        self,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        image_format: str = "RGB",
    ):
        super().__init__()
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """See ``Augmentation``."""
        jitter = self.jitter
        order, *strengths = jitter.get_params(
            jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        )
        return T.ColorTransform(partial(self._adjust, order.tolist(), strengths))

    def _adjust(
        self, order: list[int], strengths: list[float | None], image: np.ndarray
    ) -> np.ndarray:
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        is_bgr = self.image_format == "BGR"
        picture = picture.flip(0) if is_bgr else picture
        for index in order:
            if strengths[index] is not None:
                picture = _ADJUST[index](picture, strengths[index])
        picture = picture.flip(0) if is_bgr else picture
        return picture.permute(1, 2, 0).contiguous().numpy()


def _adjust_hue(picture: torch.Tensor, turns: float) -> torch.Tensor:
    """In 256 steps, with OpenCV: torchvision's takes 4 s for 12 megapixels."""
    hsv = cv2.cvtColor(picture.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)  # 8 bits go round, as the colour circle does
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)).permute(2, 0, 1)


# In the order of torchvision's ColorJitter.get_params.
_ADJUST = (
    v2.functional.adjust_brightness,
    v2.functional.adjust_contrast,
    v2.functional.adjust_saturation,
    _adjust_hue,
)


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """In training colours, crop, size and flip, of which a config chooses; else only the size.

    - ``INPUT.COLOR_JITTER``: :class:`ColorJitter`, on the small picture that the file holds.
    - ``INPUT.CROP``: Detectron2's ``RandomCrop``.
    - the short side drawn from ``INPUT.MIN_SIZE_TRAIN``; or ``INPUT.LSJ``, large-scale jitter
      (Ghiasi et al. 2021, section 3.2): fitted into a square, times a random scale, and what is
      larger than the square cropped. What is smaller is not padded here, as the model does that.
    - ``INPUT.RANDOM_FLIP``.

    Test-time augmentation (``TEST.AUG.ENABLED``) resizes pictures itself, each from what is in the
    file: nothing is done to them here.

    Raises:
        UserError: a key has a value that cannot be.
    """
    keys = cfg.INPUT
    _require_sound_values(keys)
    if cfg.TEST.AUG.ENABLED and not is_train:
        return []
    augmentations = build_augmentation(cfg, is_train)
    if is_train:
        if keys.LSJ.ENABLED:
            augmentations[:1] = _large_scale_jitter(keys.LSJ)
        if keys.CROP.ENABLED:
            augmentations.insert(0, T.RandomCrop(keys.CROP.TYPE, keys.CROP.SIZE))
        if keys.COLOR_JITTER.ENABLED:
            augmentations.insert(0, _color_jitter(keys.COLOR_JITTER, keys.FORMAT))
    return [WithOpenCV(augmentation, keys.RESIZE_BACKEND) for augmentation in augmentations]


def _require_sound_values(keys: CfgNode) -> None:
    """For which Detectron2 has assertions, or which it notices at the first picture."""
    require_choice("INPUT.RESIZE_BACKEND", keys.RESIZE_BACKEND, RESIZE_BACKENDS)
    require_choice("INPUT.FORMAT", keys.FORMAT, ("RGB", "BGR"))
    require_choice("INPUT.RANDOM_FLIP", keys.RANDOM_FLIP, ("horizontal", "vertical", "none"))
    sampling = keys.MIN_SIZE_TRAIN_SAMPLING
    require_choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, ("choice", "range"))
    if not keys.MIN_SIZE_TRAIN:
        raise UserError("INPUT.MIN_SIZE_TRAIN names no size")
    if sampling == "range" and len(keys.MIN_SIZE_TRAIN) != 2:
        raise UserError(
            "INPUT.MIN_SIZE_TRAIN_SAMPLING range: INPUT.MIN_SIZE_TRAIN must be two sizes, the"
            f" smallest and the largest, not {keys.MIN_SIZE_TRAIN}"
        )
    if not keys.CROP.ENABLED:
        return
    kinds = ("relative_range", "relative", "absolute", "absolute_range")
    require_choice("INPUT.CROP.TYPE", keys.CROP.TYPE, kinds)
    if len(keys.CROP.SIZE) != 2:
        raise UserError(f"INPUT.CROP.SIZE {keys.CROP.SIZE}: give two numbers")
    if keys.CROP.TYPE == "absolute_range" and keys.CROP.SIZE[0] > keys.CROP.SIZE[1]:
        raise UserError(
            f"INPUT.CROP.SIZE {keys.CROP.SIZE}: absolute_range crops take the smallest and the"
            " largest side"
        )
    is_relative = keys.CROP.TYPE.startswith("relative")
    if not all(0 < x <= 1 if is_relative else x >= 1 and x == int(x) for x in keys.CROP.SIZE):
        which = "shares of the picture, to 1" if is_relative else "whole numbers of pixels"
        raise UserError(f"INPUT.CROP.SIZE {keys.CROP.SIZE}: {keys.CROP.TYPE} crops take {which}")


def largest_sides(cfg: CfgNode, is_train: bool) -> tuple[float, float] | None:
    """The short and the long side that resizing gives a picture at most; None where it may not.

    Raises:
        UserError: ``INPUT.CROP`` enlarges a part of the picture, by as much as it is smaller.
    """
    keys = cfg.INPUT
    if not is_train:
        resizes = keys.MIN_SIZE_TEST > 0 and not cfg.TEST.AUG.ENABLED
        return (keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST) if resizes else None
    if keys.CROP.ENABLED:
        raise UserError("INPUT.REDUCED_DECODING does not go with INPUT.CROP; INPUT.LSJ crops too")
    if keys.LSJ.ENABLED:
        return (keys.LSJ.SIZE * keys.LSJ.MAX_SCALE,) * 2
    return (max(keys.MIN_SIZE_TRAIN), keys.MAX_SIZE_TRAIN) if max(keys.MIN_SIZE_TRAIN) > 0 else None


def _large_scale_jitter(keys: CfgNode) -> list[T.Augmentation]:
    smallest, largest, side = keys.MIN_SCALE, keys.MAX_SCALE, keys.SIZE
    if not 0 < smallest <= largest or side < 1:
        raise UserError(
            f"INPUT.LSJ: scales {smallest} to {largest} of {side} pixels; choose"
            " 0 < MIN_SCALE <= MAX_SCALE and SIZE of 1 or more"
        )
    return [
        T.ResizeScale(smallest, largest, side, side),
        # Not FixedSizeCrop: it draws one number for both axes, so that no crop has the upper right
        # corner of a picture, nor the lower left.
        T.RandomCrop("absolute", (side, side)),
    ]


def _color_jitter(keys: CfgNode, image_format: str) -> ColorJitter:
    try:
        return ColorJitter(
            keys.BRIGHTNESS, keys.CONTRAST, keys.SATURATION, keys.HUE, image_format=image_format
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"INPUT.COLOR_JITTER: {error}") from error
