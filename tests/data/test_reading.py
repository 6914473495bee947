"""Every kind of picture is read as Detectron2 reads it; one that cannot be is named."""

import io
import struct

import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import ExifTags, Image

from project.data.reading import read_image
from project.data.synthetic import render_scene
from project.errors import UserError
from project.prediction.predictor import as_rgb

PICTURE = Image.fromarray(render_scene(0, "train", 0).image)


def encoded(kind: str = "JPEG", mode: str = "RGB", picture: Image.Image = PICTURE, **options):
    content = io.BytesIO()
    picture.convert(mode).save(content, kind, **options)
    return content.getvalue()


def rotated(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(kind, exif=exif)


FILES = {
    "grey": encoded(mode="L"),
    "progressive": encoded(progressive=True),
    "no-subsampling": encoded(subsampling=0),
    "low-quality": encoded(quality=10),
    "bytes-after-the-end": encoded() + b"\0\0more",
    "png": encoded("PNG"),
    "palette": encoded("PNG", "P"),
    "transparent": encoded("PNG", "RGBA"),
    "grey-transparent": encoded("PNG", "LA"),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP"),
    "webp": encoded("WEBP"),
    **{f"jpeg-exif-{i}": rotated(i, "JPEG") for i in range(1, 9)},
    "png-exif-6": rotated(6, "PNG"),
}


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_detectron2s(tmp_path, name, image_format):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    image = read_image(path, image_format)
    assert image.dtype == np.uint8 and image.ndim == 3
    assert np.array_equal(image, detection_utils.read_image(str(path), image_format))


def test_a_tiff_is_rotated_once(tmp_path):
    # Pillow rotates it when it decodes, and Detectron2 does so again.
    for kind in ("TIFF", "PNG"):
        (tmp_path / kind).write_bytes(rotated(6, kind))
    assert np.array_equal(read_image(tmp_path / "TIFF"), read_image(tmp_path / "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_their_upper_eight(tmp_path, kind):
    values = (np.arange(60 * 80, dtype=np.uint16) * 13).reshape(60, 80)
    path = tmp_path / "deep"
    path.write_bytes(encoded(kind, "I;16", Image.fromarray(values)))
    expected = np.repeat(values[..., None] // 256, 3, axis=2)
    assert np.array_equal(read_image(path, "RGB"), expected)


def test_cmyk_is_detectron2s_within_a_grey_level(tmp_path):
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(encoded(mode="CMYK"))
    expected = detection_utils.read_image(str(path), "RGB").astype(int)
    assert np.abs(read_image(path) - expected).max() <= 1


WHOLE = encoded()
SIZE_AT = WHOLE.index(b"\xff\xc0") + 5  # of the height and width in a JPEG's header
BROKEN = {
    "missing": (None, "No such file"),
    "empty": (b"", "it is no picture"),
    "text": (b"<html>404</html>", "it is no picture"),
    "cut": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "cut-at-the-last-byte": (WHOLE[:-1], "truncated"),
    "cut-png": (FILES["png"][:2000], "truncated"),
    "jpeg-of-four-gigapixels": (
        WHOLE[:SIZE_AT] + struct.pack(">2H", 65500, 65500) + WHOLE[SIZE_AT + 4 :],
        "exceeds limit",
    ),
    "jpeg-of-two-marks": (b"\xff\xd8\xff\xd9", "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_named(tmp_path, name):
    content, reason = BROKEN[name]
    path = tmp_path / f"{name}.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_of_pillows_is_read_as_its_file_is(tmp_path):
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as picture:
        assert np.array_equal(as_rgb(picture), as_rgb(tmp_path / "grey.png"))
    assert 120 < as_rgb(tmp_path / "grey.png").mean() < 135
