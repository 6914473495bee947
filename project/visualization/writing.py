"""Pictures written to files."""

from pathlib import Path

import cv2
import numpy as np

from project.errors import UserError


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a picture; its folder is made if need be.

    Args:
        path: its suffix says the format.
        image: RGB or RGBA, uint8; or grey, uint8 or uint16.

    Raises:
        UserError: the file cannot be written.
    """
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])
    # Not imwrite, which crashes at a name that is not in UTF-8.
    is_encoded, content = cv2.imencode(path.suffix, image)
    if not is_encoded:
        height, width = image.shape[:2]
        raise UserError(f"{path} could not be written: it cannot hold {width} x {height} pixels")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror})") from error
