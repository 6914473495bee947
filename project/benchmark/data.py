"""Loading: from the JPEG on disk to the tensors of a training picture."""

import cProfile
import pstats
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper
from tabulate import tabulate

from project.benchmark.timing import OURS, STOCK, Spread, one_core, ratio, take_turns
from project.data.loading import build_training_mapper
from project.data.mapper import build_mapper
from project.data.reading import read_image
from project.data.segmentation import compressed_rle, decode_segmentation
from project.errors import UserError, require_choice
from project.seeding import seeded
from project.visualization.writing import write_picture

# What of a mapper's time is spent where: (file, function) -> name of the step.
_STEPS = {
    ("detection_utils.py", "read_image"): "decode",
    ("reading.py", "read_image"): "decode",
    ("augmentation.py", "__call__"): "resize and flip",
    ("dataset_mapper.py", "_transform_annotations"): "boxes and masks",
    ("mapper.py", "_instances"): "boxes and masks",
    ("copy.py", "deepcopy"): "copy the record",
}
_OTHER = "tensor of the picture, other"
# The switches of docs/data.md, for what each of them costs.
SWITCHES = {
    "none": (),
    "INPUT.CROP": ("INPUT.CROP.ENABLED", True),
    "INPUT.COLOR_JITTER": ("INPUT.COLOR_JITTER.ENABLED", True),
    "INPUT.LSJ": ("INPUT.LSJ.ENABLED", True),
    "INPUT.COPY_PASTE": ("INPUT.COPY_PASTE.PROBABILITY", 1.0),
    "INPUT.REDUCED_DECODING": ("INPUT.REDUCED_DECODING", True),
}


@dataclass(frozen=True)
class Agreement:
    """How two mappers that resize alike differ.

    Attributes:
        pictures: compared; their pixels, boxes and classes are equal.
        masks: compared; those of RLE are equal.
        pixels: share of the pixels of masks of polygons that differ, all of them near a boundary:
            Detectron2 transforms a polygon before it rasterises it.
        distance: what is near, in pixels of the source.
    """

    pictures: int
    masks: int
    pixels: float
    distance: int


@dataclass(frozen=True)
class DataBenchmark:
    """Seconds a picture.

    Attributes:
        seconds: of each mapper.
        ratio: how many times as fast this project is.
        steps: of each mapper, from the name of a step to its median.
        switches: of this project's mapper, with each augmentation alone.
    """

    agreement: Agreement
    seconds: dict[str, Spread]
    ratio: Spread
    steps: dict[str, dict[str, float]]
    switches: dict[str, Spread]


def benchmark_data(cfg: CfgNode, records: Sequence[dict], rounds: int) -> DataBenchmark:
    """Compare this project's mapper with Detectron2's, on one core, in one process.

    Each resizes with its own default: Detectron2 with Pillow, this project with OpenCV. That both
    give the same is shown with Pillow for both.

    Args:
        cfg: a recipe with bit-masks whose augmentations are Detectron2's: sizes and flips.
        records: the pictures to load.

    Raises:
        UserError: the mappers disagree, or the recipe has polygons or other augmentations.
    """
    require_stock_augmentations(cfg)
    stored = DatasetFromList(list(records), copy=False)
    with one_core():
        agreement = compare_mappers(cfg, stored)
        own = with_keys(cfg, "INPUT.RESIZE_BACKEND", "opencv")
        mappers: dict[str, Callable] = {
            STOCK: DatasetMapper(cfg, is_train=True),
            OURS: build_mapper(own, is_train=True),
        }
        programs = {name: _load_all(mapper, stored) for name, mapper in mappers.items()}
        seconds = take_turns(programs, rounds)
        spreads = {name: _per_picture(values, stored) for name, values in seconds.items()}
        steps = {name: _steps(programs[name], spreads[name].median) for name in programs}
        switched = {
            name: _load_all(build_training_mapper(with_keys(own, *pairs), stored), stored)
            for name, pairs in SWITCHES.items()
        }
        switches = {
            name: _per_picture(values, stored)
            for name, values in take_turns(switched, rounds).items()
        }
    return DataBenchmark(agreement, spreads, ratio(seconds, STOCK, OURS), steps, switches)


def enlarged(record: Mapping, factor: int, folder: Path) -> dict:
    """A record of the same picture with ``factor`` times as many pixels a side, as a JPEG."""
    image = read_image(record["file_name"])
    height, width = (factor * side for side in image.shape[:2])
    path = folder / f"{Path(record['file_name']).stem}.jpg"
    write_picture(path, cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
    annotations = []
    for annotation in record["annotations"]:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            segmentation = [[factor * x for x in polygon] for polygon in segmentation]
        else:
            mask = decode_segmentation(segmentation, record["height"], record["width"])
            segmentation = compressed_rle(mask.repeat(factor, axis=0).repeat(factor, axis=1))
        box = [factor * x for x in annotation["bbox"]]
        annotations.append({**annotation, "bbox": box, "segmentation": segmentation})
    size = {"height": height, "width": width}
    return {**record, **size, "file_name": str(path), "annotations": annotations}


def report_data(result: DataBenchmark) -> str:
    """The figures as tables."""
    agreement = result.agreement
    equal = (
        f"{agreement.pictures} pictures; resized alike, their pixels, boxes, classes and RLE masks"
        f" are equal; of {agreement.masks} masks, {agreement.pixels:.2%} of the pixels differ, all"
        f" within {agreement.distance} pixels of the boundary of a polygon"
    )
    in_ms = {name: spread.scaled(1e3) for name, spread in result.seconds.items()}
    rows = [[name, str(spread), 1e3 / spread.median] for name, spread in in_ms.items()]
    seconds = tabulate(rows, ["", "ms a picture", "pictures/s"], floatfmt=".0f")
    names = list(dict.fromkeys(step for steps in result.steps.values() for step in steps))
    rows = [[n, *(1e3 * steps.get(n, 0) for steps in result.steps.values())] for n in names]
    steps = tabulate(rows, ["step, ms a picture", *result.steps], floatfmt=".2f")
    rows = [[name, str(spread.scaled(1e3))] for name, spread in result.switches.items()]
    switches = tabulate(rows, [f"{OURS}, with", "ms a picture"])
    faster = f"{OURS} is {result.ratio} times as fast as {STOCK}"
    return "\n\n".join([equal, seconds, faster, steps, switches])


def require_stock_augmentations(cfg: CfgNode) -> None:
    """Raise :class:`UserError` for a recipe that Detectron2's mapper cannot load pictures for."""
    require_choice("INPUT.MASK_FORMAT", cfg.INPUT.MASK_FORMAT, ("bitmask",))
    keys = cfg.INPUT
    own = {
        "INPUT.LSJ.ENABLED False": keys.LSJ.ENABLED,
        "INPUT.COPY_PASTE.PROBABILITY 0.0": keys.COPY_PASTE.PROBABILITY > 0,
        "INPUT.COLOR_JITTER.ENABLED False": keys.COLOR_JITTER.ENABLED,
    }
    if any(own.values()):
        without = " ".join(pair for pair, is_on in own.items() if is_on)
        raise UserError(
            "Detectron2, which this is compared with, has not the recipe's augmentations: choose"
            f" another recipe, or add {without} and INPUT.MIN_SIZE_TRAIN"
        )


def compare_mappers(cfg: CfgNode, records: Sequence[dict]) -> Agreement:
    """Load every picture with both mappers, resizing with Pillow, and compare.

    Raises:
        UserError: they disagree.
    """
    cfg = with_keys(cfg, "INPUT.RESIZE_BACKEND", "pillow")
    stock, ours = DatasetMapper(cfg, is_train=True), build_mapper(cfg, is_train=True)
    masks, differing, pixels, furthest = 0, 0, 0, 0
    for number, record in enumerate(records):
        with seeded(number):
            expected = stock(record)
        with seeded(number):
            found = ours(record)
        theirs, mine = expected["instances"], found["instances"]
        where = f"{record['file_name']}: the mappers disagree on"
        if not torch.equal(expected["image"], found["image"]):
            raise UserError(f"{where} the picture's pixels")
        if len(mine) != len(theirs):
            raise UserError(f"{where} the number of objects, {len(theirs)} and {len(mine)}")
        for name in ("gt_boxes", "gt_classes"):
            if not torch.equal(_tensor(theirs.get(name)), _tensor(mine.get(name))):
                raise UserError(f"{where} {name}")
        if not len(mine):
            continue
        # A pixel of the file's may be on the other side of a boundary, and rounding adds one.
        distance = 1 + ceil(mine.image_size[0] / record["height"])
        furthest = max(furthest, distance)
        said = [x["segmentation"] for x in record["annotations"] if not x.get("iscrowd", 0)]
        pairs = zip(said, mine.gt_masks.tensor, theirs.gt_masks.tensor, strict=True)
        for segmentation, mask, other in pairs:
            differs = mask.numpy() != other.numpy().astype(bool)
            masks += 1
            differing += int(differs.sum())
            pixels += int(other.sum())
            if isinstance(segmentation, list):
                differs &= ~near_boundary(other.numpy(), distance)
            if differs.any():
                raise UserError(f"{where} a mask")
    return Agreement(len(records), masks, differing / max(pixels, 1), furthest)


def near_boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Where ``mask`` (bool, (H, W)) has both values within ``distance`` pixels."""
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    values = mask.astype(np.uint8)
    return cv2.dilate(values, kernel) != cv2.erode(values, kernel)


def with_keys(cfg: CfgNode, *pairs: object) -> CfgNode:
    """A copy of ``cfg`` with other values of ``KEY, VALUE, ...``."""
    cfg = cfg.clone()
    cfg.merge_from_list(list(pairs))
    return cfg


def _tensor(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else value.tensor


def _load_all(mapper: Callable[[Mapping], dict], records: Sequence[dict]) -> Callable[[], None]:
    def load() -> None:
        for number in range(len(records)):
            with seeded(number):
                mapper(records[number])

    return load


def _per_picture(seconds: list[float], records: Sequence[dict]) -> Spread:
    return Spread.of([value / len(records) for value in seconds])


def _steps(program: Callable[[], None], seconds: float) -> dict[str, float]:
    """``seconds`` divided among the steps of a mapper, as a profile of one round divides them."""
    profile = cProfile.Profile()
    profile.runcall(program)
    stats = pstats.Stats(profile).stats
    whole = sum(own for _, _, own, _, _ in stats.values())
    steps: dict[str, float] = {}
    for (path, _, function), (_, _, _, cumulative, _) in stats.items():
        step = _STEPS.get((path.rsplit("/", 1)[-1], function))
        if step:
            # Functions of one name call one another: the outermost has the whole.
            steps[step] = max(steps.get(step, 0.0), cumulative * seconds / whole)
    return {**steps, _OTHER: seconds - sum(steps.values())}
