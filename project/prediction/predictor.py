"""A trained model, ready for pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from PIL import Image, ImageOps

from project.checkpoint.loading import fill_model
from project.checkpoint.reading import class_names, find_weights, read_checkpoint
from project.config import load_config, parse_opts
from project.data.augmentation import build_augmentations
from project.data.categories import Categories, read_categories
from project.data.coco_json import read_coco_json
from project.data.mapper import channels_first
from project.data.reading import read_image, rgb_of
from project.devices import resolve_devices
from project.errors import UserError, require_choice
from project.evaluation.detections import to_detections
from project.meta_arch.test_time_augmentation import as_tested
from project.runtime.detections import Detections
from project.runtime.pictures import rgb_array
from project.values import require_sound_model

Picture = str | Path | np.ndarray | Image.Image


class Predictor:
    """A trained detector: a picture in, its objects out.

    >>> predictor = Predictor("output/demo/latest.pth")
    >>> detections = predictor("street.jpg")
    >>> detections.class_names[0], detections.boxes_xyxy[0], detections.masks[0]

    Args:
        weights: a checkpoint; its config is found as in ``train_net.py --eval-only``.
        config_file: a recipe instead of the checkpoint's own.
        opts: ``KEY VALUE KEY VALUE ...`` on top of it, ``["MODEL.DEVICE", "cpu"]``, say.
        score_threshold: detections below are left out; None for the config's
            ``MODEL.ROI_HEADS.SCORE_THRESH_TEST``.
        test_time_augmentation: also look at the picture in other sizes, and flipped (``TEST.AUG``).
        categories_json: a COCO JSON with the categories, for a checkpoint that names none.

    Attributes:
        cfg: the resolved config.
        model: in evaluation mode.
        categories: of the model.

    Raises:
        UserError: a file is missing or damaged, the weights are no whole detector, a key is wrong,
            the categories are not known, or there is no such device.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        config_file: str | Path = "",
        opts: Sequence[str] = (),
        score_threshold: float | None = None,
        test_time_augmentation: bool = False,
        categories_json: str | Path = "",
    ):
        cfg = load_config(str(config_file), opts, weights=str(weights))
        resolve_devices(cfg, None, "MODEL.DEVICE" in parse_opts(opts))
        require_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB", "BGR"))
        require_sound_model(cfg)
        if score_threshold is not None:
            if not 0 <= score_threshold <= 1:
                raise UserError(f"a score threshold of {score_threshold}: choose one from 0 to 1")
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(score_threshold)
        if test_time_augmentation:
            cfg.TEST.AUG.ENABLED = True
        content = read_checkpoint(find_weights(cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR))
        self.categories = _categories(content, str(weights), categories_json)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(self.categories.ids)
        self.cfg = cfg
        self.model = _load_model(cfg, content, str(weights))
        self._augment = T.AugmentationList(build_augmentations(cfg, is_train=False))

    def __call__(self, picture: Picture) -> Detections:
        """The objects of one picture; see :meth:`predict`."""
        return self.predict([picture])[0]

    @torch.no_grad()
    def predict(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The objects of each picture, found in all of them at once.

        Args:
            pictures: files, PIL images, or uint8 arrays: RGB (H, W, 3), RGBA (H, W, 4), whose alpha
                is not looked at, or grey (H, W). Files and PIL images are rotated as EXIF data say.

        Raises:
            UserError: a file cannot be read, an array is no such picture, or a picture is so narrow
                that nothing of it is left in the size that the model looks at.
        """
        records = [self._record(as_rgb(picture)) for picture in pictures]
        if not records:
            return []
        return [
            to_detections(output["instances"], self.categories) for output in self.model(records)
        ]

    def _record(self, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        order = -1 if self.cfg.INPUT.FORMAT == "BGR" else 1
        inputs = T.AugInput(np.ascontiguousarray(image[..., ::order]))
        self._augment(inputs)
        return {"image": channels_first(inputs.image), "height": height, "width": width}


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture of any kind that :meth:`Predictor.predict` takes as RGB, uint8, (H, W, 3)."""
    if isinstance(picture, (str, Path)):
        return read_image(picture, "RGB")
    if isinstance(picture, Image.Image):
        return rgb_of(ImageOps.exif_transpose(picture))
    if not isinstance(picture, np.ndarray):
        raise UserError(f"a picture is a file, an array or a PIL image, not {type(picture)}")
    return rgb_array(picture)


def _load_model(cfg: CfgNode, content: dict, source: str) -> torch.nn.Module:
    model = build_model(cfg)
    report = fill_model(model, content["model"], source, cfg.MODEL.WEIGHTS_ALLOW_PARTIAL)
    empty = [name for name in report.unfilled if not name.endswith("num_batches_tracked")]
    if empty:
        raise UserError(
            f"{source} ({report.format}) is no trained detector: it has nothing for {len(empty)}"
            f" tensors of the model, {empty[0]} for one"
        )
    return as_tested(cfg, model).eval()


def _categories(content: dict, source: str, categories_json: str | Path) -> Categories:
    """Of the checkpoint, else of the JSON, whose names must be those that the checkpoint knows."""
    if content.get("categories"):
        if categories_json:
            raise UserError(f"{source} has categories of its own; leave {categories_json} out")
        return Categories.from_mapping(content["categories"])
    names = class_names(content)
    if not categories_json:
        if names is None:
            raise UserError(
                f"{source} does not say which categories it was trained on; name a COCO JSON that"
                " does (--categories)"
            )
        return Categories(tuple(range(1, len(names) + 1)), names)
    path = Path(categories_json)
    if not path.is_file():
        raise UserError(f"--categories: there is no file {str(path)!r}")
    categories = read_categories(read_coco_json(path), path)
    if not categories.ids:
        raise UserError(f"{path} has no categories")
    if names is not None and names != categories.names:
        raise UserError(f"{source} was trained on other classes than {path} has, or in other order")
    return categories
