"""Read labelme's annotations: one JSON beside each picture."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from project.data.reading import PILLOW_ERRORS
from project.data.segmentation import compressed_rle, decode_segmentation, mask_fields, polygons
from project.errors import UserError
from project.files import read_json

_CIRCLE_CORNERS = 64


@dataclass(frozen=True)
class LabelmePicture:
    """A picture that was annotated with labelme.

    Attributes:
        path: of its JSON.
        image_name: of the picture's file, relative to the JSON.
        content: of the JSON, without the picture.
    """

    path: Path
    image_name: str
    content: Mapping

    def image_bytes(self) -> bytes:
        """The picture's file or, where it is not there, what the JSON holds of it.

        Raises:
            UserError: there is neither.
        """
        file = self.path.parent / self.image_name
        if file.is_file():
            return file.read_bytes()
        data = read_json(self.path).get("imageData")
        if not data:
            raise UserError(f"{self.path}: there is no picture {str(file)!r}, and no imageData")
        try:
            return base64.b64decode(data, validate=True)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.path}: the picture in the JSON is damaged") from error

    def objects(self, height: int, width: int) -> tuple[list[tuple[str, dict]], int]:
        """Label, and COCO's fields of a mask, of each object; and how many have no pixel.

        Shapes of one label and one ``group_id`` are one object.

        Args:
            height, width: of the picture.

        Raises:
            UserError: a shape is broken, or the picture had another size when it was annotated.
        """
        said = self.content.get("imageHeight"), self.content.get("imageWidth")
        if all(isinstance(side, int) for side in said) and said != (height, width):
            raise UserError(
                f"{self.path}: {self.image_name} had {said[1]} x {said[0]} pixels when it was"
                f" annotated, and has {width} x {height} now (width x height)"
            )
        groups: dict[object, list[Mapping]] = defaultdict(list)
        for number, shape in enumerate(self.content["shapes"]):
            if _type_of(shape) not in _SHAPES:
                continue
            group = shape.get("group_id")
            key = ("alone", number) if group is None else (shape.get("label"), group)
            groups[key].append(shape)
        objects, outside = [], 0
        for shapes in groups.values():
            segmentation = self._segmentation(shapes, height, width)
            mask = decode_segmentation(segmentation, height, width)
            if mask.any():
                objects.append((str(shapes[0]["label"]), mask_fields(mask, segmentation)))
            else:
                outside += 1
        return objects, outside

    def left_out(self) -> list[str]:
        """The types of shapes that have no area: points, lines."""
        types = [_type_of(shape) for shape in self.content["shapes"]]
        return [name for name in types if name not in _SHAPES]

    def _segmentation(
        self, shapes: Sequence[Mapping], height: int, width: int
    ) -> list[list[float]] | dict:
        try:
            parts = [_SHAPES[_type_of(shape)](shape) for shape in shapes]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{self.path}: a shape is broken ({error})") from error
        if all(isinstance(part, list) for part in parts):
            return parts
        whole = np.zeros((height, width), dtype=bool)
        for part in parts:
            if isinstance(part, list):
                whole |= decode_segmentation([part], height, width)
            else:
                x, y, mask = part
                target = whole[y : y + mask.shape[0], x : x + mask.shape[1]]
                target |= mask[: target.shape[0], : target.shape[1]]
        return polygons(whole) or compressed_rle(whole)


def read_labelme(path: Path) -> LabelmePicture:
    """
    Raises:
        UserError: the file is none of labelme's.
    """
    content = read_json(path)
    types = {"imagePath": str, "shapes": list}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), wanted) for key, wanted in types.items()
    ):
        raise UserError(f"{path} is no JSON of labelme: it needs {' and '.join(types)}")
    content.pop("imageData", None)  # of thousands of pictures it would fill the memory
    for shape in content["shapes"]:
        if not isinstance(shape, dict) or not {"label", "points"} <= shape.keys():
            raise UserError(f"{path}: a shape without label or points")
    # labelme on Windows writes backslashes.
    return LabelmePicture(path, content["imagePath"].replace("\\", "/"), content)


def _type_of(shape: Mapping) -> str:
    return shape.get("shape_type", "polygon")


def _polygon(shape: Mapping) -> list[float]:
    points = np.array(shape["points"], dtype=float).reshape(-1, 2)
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    return points.reshape(-1).tolist()


def _rectangle(shape: Mapping) -> list[float]:
    (x0, y0), (x1, y1) = np.array(shape["points"], dtype=float)
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _circle(shape: Mapping) -> list[float]:
    center, edge = np.array(shape["points"], dtype=float)
    angles = np.linspace(0, 2 * np.pi, _CIRCLE_CORNERS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (center + np.linalg.norm(edge - center) * circle).reshape(-1).tolist()


def _mask(shape: Mapping) -> tuple[int, int, np.ndarray]:
    """x, y of the upper left corner, and the mask from there on, bool (H, W)."""
    (x, y), _ = np.array(shape["points"], dtype=float).round().astype(int)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as picture:
            return max(x, 0), max(y, 0), np.asarray(picture.convert("L")) > 0
    except PILLOW_ERRORS as error:
        raise ValueError("its mask is no picture") from error


_SHAPES = {"polygon": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask}
