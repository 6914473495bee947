"""Decode pictures, fast where that is safe."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from project.errors import UserError

# What Pillow raises for files that are damaged, or no pictures.
PILLOW_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, SyntaxError),
    *(struct.error, Image.DecompressionBombError),
)
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_image(path: str | Path, image_format: str = "RGB", jpeg_reduction: int = 1) -> np.ndarray:
    """As Detectron2's ``read_image``, with OpenCV for JPEG files, whose pixels are the same.

    Rotated as EXIF data say; Detectron2 rotates TIFF files twice. Grey of 16 bits becomes its upper
    8; Detectron2 makes most of it white.

    Args:
        image_format: "RGB" or "BGR".
        jpeg_reduction: 1, 2, 4 or 8. libjpeg decodes so many pixels to one, by a smaller inverse
            cosine transform, which is the faster; other files are given in full.

    Returns:
        uint8, shape (H, W, 3); H and W divided by the reduction, rounded up.

    Raises:
        UserError: the file cannot be read or decoded to its end.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({_reason(error)})") from error
    return decode_image(content, path, image_format, jpeg_reduction)


def decode_image(
    content: bytes, source: object, image_format: str = "RGB", jpeg_reduction: int = 1
) -> np.ndarray:
    """:func:`read_image` of a file's content; messages call it ``source``."""
    try:
        image = _decode_jpeg(content, image_format, jpeg_reduction)
        return _decode_with_pillow(content, image_format) if image is None else image
    except PILLOW_ERRORS as error:
        raise UserError(f"{source} cannot be read ({_reason(error)})") from error


_JPEG_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def _decode_jpeg(content: bytes, image_format: str, reduction: int) -> np.ndarray | None:
    """None where Pillow must decide: OpenCV fills up a JPEG that was cut off, and says nothing."""
    is_whole = content.startswith(_JPEG_START) and content.endswith(_JPEG_END)
    if not is_whole:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _JPEG_FLAGS[reduction])
    except cv2.error:  # more pixels than OpenCV allows
        return None
    if image is not None and image_format == "RGB":
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return image


def _decode_with_pillow(content: bytes, image_format: str) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as opened:
        picture = ImageOps.exif_transpose(opened)
    return rgb_of(picture)[..., :: -1 if image_format == "BGR" else 1]


def rgb_of(picture: Image.Image) -> np.ndarray:
    """RGB, uint8, (H, W, 3) of a picture that is upright already; grey as in :func:`read_image`."""
    return np.asarray(in_8_bits(picture).convert("RGB"))


def in_8_bits(picture: Image.Image) -> Image.Image:
    """The upper 8 bits of 16-bit grey; another picture as it is."""
    if picture.mode.startswith("I;16"):
        # Pillow's conversion would cut values off at 255.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no picture"
    return getattr(error, "strerror", None) or str(error)
