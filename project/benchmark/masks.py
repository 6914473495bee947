"""From mask logits to what a submission holds: 28 x 28 -> the picture -> RLE."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes
from pycocotools import mask as coco_mask
from tabulate import tabulate

from project.benchmark.timing import OURS, STOCK, Spread, ratio, spreads, take_turns
from project.errors import UserError
from project.structures.pasted_masks import PastedMasks

IMAGE_HW = (800, 1066)
NUM_MASKS, SIDE = 100, 28
# Sides of the boxes, as shares of the picture's.
BOX_SIZES = {"boxes of 5 to 60 %": (0.05, 0.6), "boxes of the whole picture": (1.0, 1.0)}
# Both interpolate in floating point, so a pixel may fall on the other side of the threshold.
MAX_DIFFERING = 1e-6


@dataclass(frozen=True)
class MasksBenchmark:
    """Seconds for all masks of one picture.

    Attributes:
        differing: share of the picture's pixels in which the masks of the two differ.
    """

    differing: float
    seconds: dict[str, Spread]
    ratio: Spread


def benchmark_masks(rounds: int, device: str = "cpu") -> dict[str, MasksBenchmark]:
    """Compare :class:`PastedMasks` with Detectron2's pasting and encoding, on seeded blobs.

    Returns:
        For each of ``BOX_SIZES``.

    Raises:
        UserError: the masks differ in more than ``MAX_DIFFERING`` of the pixels.
    """
    return {name: _benchmark(name, sizes, rounds, device) for name, sizes in BOX_SIZES.items()}


def report_masks(results: dict[str, MasksBenchmark]) -> str:
    """The figures as a table."""
    rows = [
        [name, *(str(x.seconds[y].scaled(1e3)) for y in (STOCK, OURS)), str(x.ratio), x.differing]
        for name, x in results.items()
    ]
    headers = [f"{NUM_MASKS} masks of {IMAGE_HW[0]} x {IMAGE_HW[1]}", f"{STOCK}, ms", f"{OURS}, ms"]
    return tabulate(rows, [*headers, "ratio", "pixels that differ"], floatfmt=".1e")


def _benchmark(name: str, sizes: tuple[float, float], rounds: int, device: str) -> MasksBenchmark:
    logits, boxes = (x.to(device) for x in seeded_masks(sizes))
    programs: dict[str, Callable[[], list[dict]]] = {
        STOCK: lambda: _paste_and_encode(logits, boxes),
        OURS: lambda: PastedMasks(logits.sigmoid(), boxes, IMAGE_HW).numpy().to_rle(),
    }
    theirs, ours = (coco_mask.decode(programs[x]()) for x in (STOCK, OURS))
    differing = float((theirs != ours).mean())
    if theirs.shape != ours.shape or differing > MAX_DIFFERING:
        raise UserError(f"{name}: {differing:.1e} of the pixels differ")
    seconds = take_turns(programs, rounds)
    return MasksBenchmark(differing, spreads(seconds), ratio(seconds, STOCK, OURS))


def seeded_masks(sizes: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of blobs with uneven borders, float32 (100, 28, 28), and boxes within the picture.

    Args:
        sizes: smallest and largest side of a box, as shares of the picture's.
    """
    generator = torch.Generator().manual_seed(0)
    image_wh = torch.tensor([IMAGE_HW[1], IMAGE_HW[0]])
    shares = torch.rand((NUM_MASKS, 2), generator=generator) * (sizes[1] - sizes[0]) + sizes[0]
    corners = torch.rand((NUM_MASKS, 2), generator=generator) * (1 - shares)
    boxes = torch.cat([corners, corners + shares], dim=1) * image_wh.repeat(2)
    steps = torch.linspace(-1, 1, SIDE)
    blob = 6 * (0.8 - steps[:, None] ** 2 - steps**2)
    return blob + torch.randn((NUM_MASKS, SIDE, SIDE), generator=generator), boxes


def _paste_and_encode(logits: torch.Tensor, boxes: torch.Tensor) -> list[dict]:
    """As Detectron2's ``detector_postprocess`` and ``instances_to_coco_json``."""
    masks = paste_masks_in_image(logits.sigmoid(), Boxes(boxes), IMAGE_HW).cpu()
    rles = [
        coco_mask.encode(np.array(mask[:, :, None], order="F", dtype="uint8"))[0] for mask in masks
    ]
    for rle in rles:
        rle["counts"] = rle["counts"].decode("utf-8")
    return rles
