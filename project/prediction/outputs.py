"""What is written of detections: pictures, crops, label masks, a COCO JSON."""

import re
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from project.data.categories import Categories
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from project.files import make_folder, write_json
from project.prediction.inputs import Source, require_utf8_name
from project.runtime.detections import Detections
from project.visualization.instances import draw_detections
from project.visualization.writing import write_picture


class PredictionWriter:
    """Writes results into a folder, as they come; used as a context manager.

    - ``coco.json``, at the end, also of what was done when an error ends it: images, categories,
      and annotations with scores.
    - ``pictures/NAME.jpg`` (``.mp4`` of a video): masks, boxes, names and scores.
    - ``masks/NAME.instances.png``: 0 and, in the k-th object of ``annotations`` of that image,
      k; ``masks/NAME.categories.png``: 0 and category ids. The more certain object is on top.
    - ``crops/NAME_k_CLASS.png``: the box of the k-th object, transparent outside of its mask.

    Args:
        folder: to write into; made if need be.
        categories: of the model.
        pictures, masks, crops: what to write.
    """

    def __init__(
        self,
        folder: Path,
        categories: Categories,
        *,
        pictures: bool = True,
        masks: bool = False,
        crops: bool = False,
    ):
        if masks and not 0 < min(categories.ids) <= max(categories.ids) <= np.iinfo(np.uint16).max:
            raise UserError(
                "label masks hold category ids from 1 to 65535, 0 is the background; here they are"
                f" {min(categories.ids)} to {max(categories.ids)}: leave out --masks, or renumber"
                " the categories"
            )
        self.folder = folder
        self.categories = categories
        self.writes_pictures = pictures
        self.writes_masks = masks
        self.writes_crops = crops
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._video: tuple[Source, cv2.VideoWriter] | None = None

    def __enter__(self) -> "PredictionWriter":
        make_folder(self.folder)
        return self

    def __exit__(self, *exception) -> None:
        self._end_video()
        named = [{"id": i, "name": name} for i, name in self.categories.to_mapping().items()]
        content = {"images": self._images, "categories": named, "annotations": self._annotations}
        write_json(content, self.folder / "coco.json")

    @property
    def number_of_pictures(self) -> int:
        """That were written, a video's frames each."""
        return len(self._images)

    @property
    def number_of_detections(self) -> int:
        """In all of them."""
        return len(self._annotations)

    def write(self, source: Source, frame: int, image: np.ndarray, detections: Detections) -> None:
        """
        Args:
            frame: number of the picture in a video, from 0; 0 for a picture.
            image: RGB, uint8, shape (H, W, 3).
        """
        self._record(source, frame, detections)
        name = source.name_of(frame)
        if self.writes_masks:
            self._write_masks(name, detections)
        if self.writes_crops:
            self._write_crops(name, image, detections)
        if self.writes_pictures:
            drawn = draw_detections(image, detections)
            if source.is_video:
                self._add_to_video(source, drawn)
            else:
                write_picture(self.folder / "pictures" / f"{name}.jpg", drawn)

    def _record(self, source: Source, frame: int, detections: Detections) -> None:
        height, width = detections.image_hw
        image_id = len(self._images) + 1
        image = {"id": image_id, "file_name": str(source.path), "height": height, "width": width}
        self._images.append({**image, "frame": frame} if source.is_video else image)
        for result in to_coco_results(detections, image_id):
            _, _, box_width, box_height = result["bbox"]
            mask = result.get("segmentation")
            area = box_width * box_height if mask is None else int(coco_mask.area(mask))
            number = len(self._annotations) + 1
            self._annotations.append({"id": number, **result, "area": area, "iscrowd": 0})

    def _write_masks(self, name: str, detections: Detections) -> None:
        instances = np.zeros(detections.image_hw, dtype=np.min_scalar_type(len(detections)))
        largest = max(self.categories.ids)
        categories = np.zeros(detections.image_hw, dtype=np.min_scalar_type(largest))
        for index in reversed(range(len(detections))):
            mask = detections.mask(index)
            instances[mask] = index + 1
            categories[mask] = detections.category_ids[index]
        write_picture(self.folder / "masks" / f"{name}.instances.png", instances)
        write_picture(self.folder / "masks" / f"{name}.categories.png", categories)

    def _write_crops(self, name: str, image: np.ndarray, detections: Detections) -> None:
        height, width = detections.image_hw
        for index, box in enumerate(detections.boxes_xyxy):
            x0, y0 = np.floor(box[:2]).astype(int).clip(0, [width - 1, height - 1])
            x1, y1 = np.ceil(box[2:]).astype(int).clip([x0 + 1, y0 + 1], [width, height])
            alpha = detections.mask(index)[y0:y1, x0:x1, None].astype(np.uint8) * 255
            crop = np.concatenate([image[y0:y1, x0:x1], alpha], axis=2)
            class_name = re.sub(r"\W+", "-", detections.class_names[index])
            file_name = f"{name}_{index + 1:03d}_{class_name}.png"
            write_picture(self.folder / "crops" / file_name, crop)

    def _add_to_video(self, source: Source, drawn: np.ndarray) -> None:
        if self._video is None or self._video[0] != source:
            self._end_video()
            path = self.folder / "pictures" / f"{source.name}.mp4"
            require_utf8_name(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            size = drawn.shape[1], drawn.shape[0]
            # MPEG-4 has rates as fractions of numbers below 65,536.
            rate = round(source.frames_per_second(), 2)
            writer = cv2.VideoWriter(str(path), codec, rate, size)
            if not writer.isOpened():
                raise UserError(f"{path} could not be written; --no-pictures leaves pictures out")
            self._video = source, writer
        self._video[1].write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def _end_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None
