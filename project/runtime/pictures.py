"""What a picture in memory is."""

import numpy as np

from project.errors import UserError


def rgb_array(picture: np.ndarray) -> np.ndarray:
    """A picture as RGB.

    Args:
        picture: uint8: RGB (H, W, 3), RGBA (H, W, 4), whose alpha is not looked at, or grey, (H, W)
            or (H, W, 1).

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        UserError: it is of another type or shape, or has no pixels.
    """
    if not isinstance(picture, np.ndarray):
        raise UserError(f"a picture is an array of numpy, not {type(picture)}")
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise UserError(
            f"a picture of {picture.dtype} and shape {picture.shape}: give uint8 of shape (H, W, 3)"
            " in the order RGB, (H, W, 4) or (H, W)"
        )
    if not picture.size:
        raise UserError(f"a picture of shape {picture.shape} has no pixels")
    if channels == 1:
        return np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
    return picture[..., :3]
