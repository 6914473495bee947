"""From the record of a picture to what the model takes."""

from collections.abc import Mapping, Sequence
from math import ceil

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

from project.data.augmentation import build_augmentations, largest_sides
from project.data.partial_decoding import decode_segmentation_at
from project.data.reading import read_image
from project.data.transforms import index_maps, seen_from
from project.errors import UserError, require_choice


class InstanceMapper:
    """What Detectron2's ``DatasetMapper`` does for instance segmentation, several times as fast.

    Bit-masks are rasterised at the picture's own size and then transformed, so that polygons and
    RLE of one mask stay one mask; Detectron2 transforms polygons first, which moves pixels of the
    boundary.

    Args:
        augmentations: applied to picture, masks and boxes, in this order.
        is_train: give ``instances`` too.
        image_format: see :func:`read_image`.
        mask_format: "bitmask", "polygon", or None for boxes without masks.
        boxes_from_masks: take the boxes from transformed bit-masks, as is right for crops, and not
            from the transformed corners of the annotated boxes.
        largest_sides: the short and the long side that a picture has at most after augmentation: a
            JPEG is decoded at a half, a quarter or an eighth of its size where that is enough.
            None: never.
    """

    def __init__(
        self,
        augmentations: Sequence[T.Augmentation],
        *,
        is_train: bool,
        image_format: str,
        mask_format: str | None,
        boxes_from_masks: bool = False,
        largest_sides: tuple[float, float] | None = None,
    ):
        self.augmentations = T.AugmentationList(augmentations)
        self.is_train = is_train
        self.image_format = image_format
        self.mask_format = mask_format
        self.boxes_from_masks = boxes_from_masks
        self.largest_sides = largest_sides

    def __call__(self, record: Mapping) -> dict:
        """
        Args:
            record: of a data set, in Detectron2's standard format; it is not changed.

        Returns:
            The record without its annotations; ``image``, uint8, shape (3, H, W); in training
            ``instances`` with ``gt_boxes``, ``gt_classes`` and ``gt_masks`` of what is no crowd and
            still in the picture.

        Raises:
            UserError: the picture cannot be read, has not the size that the record says, or is too
                narrow to be resized.
        """
        file_hw = record["height"], record["width"]
        image = _read(record, self.image_format, self._reduction(*file_hw))
        inputs = T.AugInput(image)
        try:
            transforms = self.augmentations(inputs)
        except UserError as error:
            raise UserError(f"{record['file_name']}: {error}") from error
        result = {key: value for key, value in record.items() if key != "annotations"}
        result["image"] = channels_first(inputs.image)
        if self.is_train:
            annotations = [item for item in record["annotations"] if not item.get("iscrowd", 0)]
            sizes = file_hw, inputs.image.shape[:2]
            if image.shape[:2] != file_hw:
                transforms = seen_from(transforms.transforms, image.shape[:2], file_hw)
            if self.mask_format == "polygon":
                result["instances"] = _polygon_instances(annotations, transforms, sizes[1])
            else:
                result["instances"] = self._instances(annotations, transforms, *sizes)
        return result

    def _reduction(self, height: int, width: int) -> int:
        """By how much a JPEG may be decoded smaller, and still never be enlarged."""
        if self.largest_sides is None:
            return 1
        short, long = self.largest_sides
        scale = min(short / min(height, width), long / max(height, width))
        return max((factor for factor in (2, 4, 8) if factor * scale <= 1), default=1)

    def _instances(
        self,
        annotations: Sequence[Mapping],
        transforms: T.TransformList,
        file_hw: tuple[int, int],
        image_hw: tuple[int, int],
    ) -> Instances:
        height, width = image_hw
        boxes = np.array(
            [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in annotations],
            dtype=np.float64,
        ).reshape(-1, 4)
        boxes = transforms.apply_box(boxes).clip(0, [width, height, width, height])
        is_left = (boxes[:, 2:] - boxes[:, :2] > _EMPTY_SIDE).all(axis=1)
        instances = Instances(image_hw)
        if self.mask_format is not None:
            masks = np.zeros((len(annotations), height, width), dtype=bool)
            rows, columns, others = index_maps(transforms.transforms, *file_hw)
            others = T.TransformList(others)
            for target, annotation in zip(masks, annotations, strict=True):
                mask = decode_segmentation_at(annotation["segmentation"], *file_hw, rows, columns)
                target[:] = others.apply_segmentation(mask.view(np.uint8))
            if self.boxes_from_masks:
                boxes = mask_boxes(masks)
            is_left &= masks.any(axis=(1, 2))
            instances.gt_masks = BitMasks(torch.from_numpy(masks))
        instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        classes = [item["category_id"] for item in annotations]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        # Choosing copies the masks, which is mostly in vain.
        return instances if is_left.all() else instances[torch.from_numpy(is_left)]


def _polygon_instances(
    annotations: Sequence[Mapping], transforms: T.TransformList, image_hw: tuple[int, int]
) -> Instances:
    # Detectron2 would resize whole numbers to whole numbers, half a pixel too small on average.
    precise = [
        {**x, "segmentation": [np.array(polygon, np.float64) for polygon in x["segmentation"]]}
        for x in annotations
    ]
    transformed = [
        detection_utils.transform_instance_annotations(x, transforms, image_hw) for x in precise
    ]
    instances = detection_utils.annotations_to_instances(transformed, image_hw)
    return detection_utils.filter_empty_instances(instances)


_EMPTY_SIDE = 1e-5  # pixels; as in Detectron2's filter_empty_instances


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """The tight boxes of ``masks`` (bool, (N, H, W)), XYXY, all 0 for an empty one.

    As ``BitMasks.get_bounding_boxes``, which walks through each mask several times.

    Returns:
        float64, shape (N, 4).
    """
    extents = [cv2.boundingRect(mask) for mask in masks.view(np.uint8)]
    boxes = np.array(extents, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def build_mapper(cfg: CfgNode, is_train: bool) -> InstanceMapper:
    """The mapper of a config; see :func:`build_augmentations`.

    Raises:
        UserError: a key of ``INPUT`` has a value that cannot be, or two do not go together.
    """
    crops = cfg.INPUT.CROP.ENABLED or cfg.INPUT.LSJ.ENABLED
    require_choice("INPUT.MASK_FORMAT", cfg.INPUT.MASK_FORMAT, ("bitmask", "polygon"))
    if crops and cfg.INPUT.MASK_FORMAT == "polygon":
        raise UserError("INPUT.CROP and INPUT.LSJ cut masks: set INPUT.MASK_FORMAT bitmask")
    _require_sound_copy_paste(cfg)
    return InstanceMapper(
        build_augmentations(cfg, is_train),
        is_train=is_train,
        image_format=cfg.INPUT.FORMAT,
        mask_format=cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
        boxes_from_masks=cfg.MODEL.MASK_ON and crops,
        largest_sides=largest_sides(cfg, is_train) if cfg.INPUT.REDUCED_DECODING else None,
    )


def _require_sound_copy_paste(cfg: CfgNode) -> None:
    probability = cfg.INPUT.COPY_PASTE.PROBABILITY
    if not 0 <= probability <= 1:
        raise UserError(f"INPUT.COPY_PASTE.PROBABILITY {probability}: choose a number from 0 to 1")
    if probability and not (cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "bitmask"):
        raise UserError(
            "INPUT.COPY_PASTE needs MODEL.MASK_ON True and INPUT.MASK_FORMAT bitmask; or set"
            " INPUT.COPY_PASTE.PROBABILITY 0"
        )


def _read(record: Mapping, image_format: str, jpeg_reduction: int) -> np.ndarray:
    try:
        image = read_image(record["file_name"], image_format, jpeg_reduction)
    except UserError as error:
        raise UserError(
            f"{error}; scripts/check_dataset.py --decode finds all such pictures, and with --fix"
            " leaves them out"
        ) from error
    expected, found = (record["height"], record["width"]), image.shape[:2]
    reduced = tuple(ceil(side / jpeg_reduction) for side in expected)
    if found not in (expected, reduced):
        if jpeg_reduction > 1:
            return _read(record, image_format, 1)  # to say the size of the file
        raise UserError(
            f"{record['file_name']} has {found[1]} x {found[0]} pixels, {expected[1]} x"
            f" {expected[0]} in the JSON (width x height)"
        )
    return image


def channels_first(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, C) as (C, H, W)."""
    height, width, channels = image.shape
    planes = np.empty((channels, height, width), dtype=image.dtype)
    # Many times as fast as copying the transposed array.
    cv2.split(np.ascontiguousarray(image), list(planes))
    return torch.from_numpy(planes)
