"""Contact sheets: predictions beside their ground truth, and pictures as training sees them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import BitMasks, PolygonMasks

from project.data.reading import read_image
from project.data.segmentation import decode_segmentation
from project.errors import UserError
from project.evaluation.coco_results import by_image
from project.visualization.instances import add_title, draw_instances
from project.visualization.writing import write_picture


def arrange(pictures: Sequence[np.ndarray], columns: int, gap: int = 6) -> np.ndarray:
    """Put pictures (RGB, uint8) of any sizes into a grid on white, centred in equal cells."""
    height = max(picture.shape[0] for picture in pictures) + gap
    width = max(picture.shape[1] for picture in pictures) + gap
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, min(columns, len(pictures)) * width, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        y = row * height + (height - picture.shape[0]) // 2
        x = column * width + (width - picture.shape[1]) // 2
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def prediction_sheet(
    coco_json: Mapping,
    image_root: str | Path,
    detections: Sequence[Mapping],
    *,
    num_images: int = 12,
    min_score: float = 0.5,
    columns: int = 3,
    cell_hw: tuple[int, int] = (270, 360),
) -> np.ndarray:
    """Pictures spread evenly over the data set: prediction left, ground truth right.

    Args:
        coco_json: content of the COCO JSON; without "annotations" only predictions are drawn.
        image_root: the folder of its pictures.
        detections: COCO results with ids of that JSON.
        min_score: less certain detections are not drawn.
        cell_hw: height and width that a panel is enlarged to, in pixels.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        UserError: a picture cannot be read, or an RLE is not of its size.
    """
    images = coco_json["images"]
    if not images:
        raise UserError("there are no pictures to draw")
    number = min(num_images, len(images))
    chosen = [images[index * len(images) // number] for index in range(number)]
    names = {category["id"]: category["name"] for category in coco_json.get("categories", [])}
    predicted = by_image(item for item in detections if item["score"] >= min_score)
    annotated = by_image(coco_json.get("annotations", []))
    pictures = []
    for record in chosen:
        image = read_image(Path(image_root) / record["file_name"])
        scale = min(cell_hw[0] / image.shape[0], cell_hw[1] / image.shape[1])
        # The most certain one above the others, as in predict.py's pictures.
        found = sorted(predicted[record["id"]], key=lambda item: item["score"])
        panels = [_draw(image, found, names, scale, scored=True)]
        if "annotations" in coco_json:
            panels.append(_draw(image, annotated[record["id"]], names, scale, scored=False))
        pictures.append(add_title(np.concatenate(panels, axis=1), record["file_name"]))
    return arrange(pictures, columns)


def draw_predictions(
    coco_json: Mapping,
    image_root: str | Path,
    detections: Sequence[Mapping],
    output: str | Path,
    **layout,
) -> None:
    """Write a :func:`prediction_sheet`, whose arguments the others are, as a PNG.

    Args:
        output: the PNG to write.

    Raises:
        UserError: see :func:`prediction_sheet`, or ``output`` cannot be written.
    """
    write_picture(Path(output), prediction_sheet(coco_json, image_root, detections, **layout))


def draw_training_pictures(
    pictures: Iterable[Mapping],
    class_names: Sequence[str],
    output: str | Path,
    *,
    image_format: str = "RGB",
    columns: int = 4,
    cell_hw: tuple[int, int] = (300, 300),
) -> None:
    """Write a PNG of what a mapper gives to the model: pictures with their boxes and masks.

    Args:
        pictures: with ``image``, ``instances`` and ``file_name``, as of
            :class:`project.data.mapper.InstanceMapper`.
        class_names: of the classes that ``gt_classes`` counts.
        output: the PNG to write.
        image_format: "RGB" or "BGR".
        cell_hw: height and width that a picture is fitted into, in pixels.

    Raises:
        UserError: ``output`` cannot be written.
    """
    cells = []
    for picture in pictures:
        channels = picture["image"].numpy()[:: -1 if image_format == "BGR" else 1]
        instances = picture["instances"]
        height, width = instances.image_size
        classes = instances.gt_classes.tolist()
        drawn = draw_instances(
            channels.transpose(1, 2, 0),
            _masks_of(instances),
            instances.gt_boxes.tensor.numpy(),
            [class_names[index] for index in classes],
            classes,
            min(cell_hw[0] / height, cell_hw[1] / width),
        )
        title = f"{Path(picture['file_name']).name}, {width} x {height}"
        cells.append(add_title(drawn, title))
    write_picture(Path(output), arrange(cells, columns))


def _masks_of(instances) -> np.ndarray:
    height, width = instances.image_size
    if not instances.has("gt_masks"):
        return np.zeros((len(instances), height, width), dtype=bool)
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, height, width)
    return masks.tensor.to(torch.bool).numpy()


def _draw(
    image: np.ndarray,
    items: Sequence[Mapping],
    names: Mapping[int, str],
    scale: float,
    *,
    scored: bool,
) -> np.ndarray:
    height, width = image.shape[:2]
    masks = (  # a model may have boxes only
        decode_segmentation(item["segmentation"], height, width)
        if "segmentation" in item
        else np.zeros((height, width), dtype=bool)
        for item in items
    )
    boxes = np.array([item["bbox"] for item in items], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [
        names.get(item["category_id"], str(item["category_id"]))
        + (f" {item['score']:.2f}" if scored else "")  # annotations may have any other keys
        for item in items
    ]
    categories = [item["category_id"] for item in items]
    return draw_instances(image, masks, boxes, labels, categories, scale)
