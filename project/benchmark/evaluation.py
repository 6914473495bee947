"""COCO's evaluation of boxes and masks: against pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from project.benchmark.timing import OURS, Spread, ratio, spreads, take_turns
from project.data.categories import Categories
from project.errors import UserError
from project.evaluation.coco_metrics import IOU_TYPES, SUMMARY, evaluate, load
from project.memory import peak_memory

STOCK = "pycocotools"
NUM_CLASSES, DETECTIONS, OBJECTS = 20, 20, 7
IMAGE_HW = (240, 320)
MAX_DIFFERENCE = 1e-6  # of the metrics, in [0, 1]
_CATEGORIES = Categories.from_mapping({i: str(i) for i in range(1, NUM_CLASSES + 1)})


@dataclass(frozen=True)
class EvaluationBenchmark:
    """Seconds of one kind of evaluation.

    Attributes:
        loading: from JSON contents to indexed sets.
        seconds: evaluate, accumulate and summarise.
        ratio: of ``seconds``.
        ap: what both found, in percent.
        difference: the largest one between metrics, in [0, 1].
        added_memory: what loading and evaluating by this project add to the process, in GB.
    """

    loading: dict[str, Spread]
    seconds: dict[str, Spread]
    ratio: Spread
    ap: float
    difference: float
    added_memory: float


def benchmark_evaluation(rounds: int, num_images: int = 5000) -> dict[str, EvaluationBenchmark]:
    """Compare with ``pycocotools.COCOeval`` on generated detections, for boxes and for masks.

    Raises:
        UserError: a metric differs by more than 1e-6.
    """
    coco_json, detections = generated_detections(num_images)
    added, before = {}, peak_memory()
    for iou_type in IOU_TYPES:  # first of all, as a process does not give back what it had
        evaluate(*load(coco_json, detections, iou_type, _CATEGORIES), iou_type, _CATEGORIES)
        added[iou_type] = (peak_memory() - before) / 1e9
    return {
        iou_type: _benchmark(_Sides(coco_json, detections, iou_type), rounds, added[iou_type])
        for iou_type in IOU_TYPES
    }


def report_evaluation(results: Mapping[str, EvaluationBenchmark]) -> str:
    """The figures as a table."""
    rows = [
        [
            IOU_TYPES[iou_type],
            *(str(x.seconds[name]) for name in (STOCK, OURS)),
            str(x.ratio),
            *(str(x.loading[name]) for name in (STOCK, OURS)),
            x.ap,
            f"{x.difference:.0e}",
            x.added_memory,
        ]
        for iou_type, x in results.items()
    ]
    headers = ["", f"{STOCK}, s", f"{OURS}, s", "ratio", f"loading: {STOCK}, s", f"{OURS}, s"]
    return tabulate(rows, [*headers, "AP", "differs by", "GB added"], floatfmt=".2f")


def _benchmark(sides: "_Sides", rounds: int, added_memory: float) -> EvaluationBenchmark:
    ap, difference = sides.compare()
    take_turns({STOCK: sides.run_stock, OURS: sides.run_ours}, rounds)
    loading, seconds = (
        {name: [part[index] for part in values[-rounds:]] for name, values in sides.parts.items()}
        for index in range(2)
    )
    return EvaluationBenchmark(
        spreads(loading),
        spreads(seconds),
        ratio(seconds, STOCK, OURS),
        100 * ap,
        difference,
        added_memory,
    )


def seconds_of_masks(num_images: int) -> dict[str, float]:
    """What each side takes to evaluate the masks of so many pictures, once, without loading.

    Raises:
        UserError: a metric differs by more than 1e-6.
    """
    sides = _Sides(*generated_detections(num_images), "segm")
    sides.compare()
    return {name: seconds for name, ((_, seconds),) in sides.parts.items()}


@dataclass
class _Sides:
    """Both evaluations of the same; ``parts`` has the seconds of loading and of the rest."""

    coco_json: Mapping
    detections: Sequence[Mapping]
    iou_type: str
    parts: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: {STOCK: [], OURS: []}
    )

    def run_ours(self) -> list[float]:
        start = perf_counter()
        loaded = load(self.coco_json, self.detections, self.iou_type, _CATEGORIES)
        middle = perf_counter()
        summary = evaluate(*loaded, self.iou_type, _CATEGORIES).summary
        self.parts[OURS].append((middle - start, perf_counter() - middle))
        return [summary[name] / 100 for name in SUMMARY]

    def run_stock(self) -> list[float]:
        start = perf_counter()
        evaluation = _load_stock(self.coco_json, self.detections, self.iou_type)
        middle = perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        self.parts[STOCK].append((middle - start, perf_counter() - middle))
        return list(evaluation.stats[: len(SUMMARY)])

    def compare(self) -> tuple[float, float]:
        """Run each once: the AP, and the largest difference between metrics."""
        found, expected = self.run_ours(), self.run_stock()
        difference = float(np.abs(np.subtract(found, expected)).max())
        if not difference <= MAX_DIFFERENCE:
            raise UserError(f"{self.iou_type}: the metrics differ by {difference:.1e}")
        return expected[0], difference


def _load_stock(coco_json: Mapping, detections: Sequence[Mapping], iou_type: str) -> COCOeval:
    dropped = "bbox" if iou_type == "segm" else "segmentation"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_json
        truth.createIndex()
        results = [{k: v for k, v in item.items() if k != dropped} for item in detections]
        return COCOeval(truth, truth.loadRes(results), iou_type)


def generated_detections(num_images: int) -> tuple[dict, list[dict]]:
    """Ellipses of all sizes, and detections that find most of them more or less well. Seeded.

    Returns:
        Content of a COCO JSON with 7 objects a picture, and COCO results, 20 a picture.
    """
    random = np.random.default_rng(0)
    height, width = IMAGE_HW
    annotations, detections = [], []
    for image_id in range(1, num_images + 1):
        centres = random.uniform((0, 0), (width, height), (OBJECTS, 2))
        radii = np.exp(random.uniform(np.log(6), np.log(90), (OBJECTS, 2)))
        classes = random.integers(1, NUM_CLASSES + 1, OBJECTS)
        for centre, radius, category in zip(centres, radii, classes, strict=True):
            fields = _ellipse(centre, radius)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(category),
                    "iscrowd": 0,
                    "area": float(coco_mask.area(fields["segmentation"])),
                    **fields,
                }
            )
        for _ in range(DETECTIONS):
            found = random.integers(OBJECTS)
            is_right = random.random() < 0.7
            category = classes[found] if is_right else random.integers(1, NUM_CLASSES + 1)
            shift = random.normal(0, 0.15, 2) * radii[found]
            radius = radii[found] * np.exp(random.normal(0, 0.15, 2))
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": int(category),
                    "score": float(random.random()),
                    **_ellipse(centres[found] + shift, radius),
                }
            )
    images = [{"id": i, "height": height, "width": width} for i in range(1, num_images + 1)]
    categories = [{"id": i, "name": str(i)} for i in range(1, NUM_CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def _ellipse(centre: np.ndarray, radius: np.ndarray) -> dict:
    points = centre + radius * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    rle = coco_mask.frPyObjects([points.clip(0, IMAGE_HW[::-1]).ravel().tolist()], *IMAGE_HW)[0]
    return {"segmentation": rle, "bbox": coco_mask.toBbox(rle).tolist()}
