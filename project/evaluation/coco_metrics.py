"""COCO's average precision of boxes and masks (cocodataset.org, "Detection evaluation")."""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from project.data.categories import Categories
from project.errors import UserError

IOU_TYPES = {"bbox": "box", "segm": "mask"}  # what is compared, and its name in tables
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class AveragePrecision:
    """In percent; NaN where there is no ground truth to find.

    Attributes:
        summary: "AP" (mean over IoU .50 to .95 and classes), "AP50", "AP75", and "APs", "APm",
            "APl" of objects below 32^2, up to 96^2, and above, in pixels.
        per_class: name (see ``Categories.unique_names``) -> {"AP", "AP50", "instances" (of the
            ground truth, without crowds)}.
    """

    summary: dict[str, float]
    per_class: dict[str, dict[str, float]]

    def to_json(self) -> dict:
        """Plain data; NaN becomes None, which JSON can say."""
        return {
            **{name: _or_none(value) for name, value in self.summary.items()},
            "per_class": {
                name: {key: _or_none(value) for key, value in values.items()}
                for name, values in self.per_class.items()
            },
        }


def evaluate_detections(
    coco_json: Mapping, detections: Sequence[Mapping], iou_type: str, categories: Categories
) -> AveragePrecision:
    """Compare detections with a COCO JSON's annotations.

    Args:
        coco_json: content of the JSON, with "images" and "annotations".
        detections: COCO results with the JSON's image and category ids. All of them count, also
            where there are more than COCO's 100 of a class in a picture.
        iou_type: "bbox" or "segm".

    Raises:
        UserError: a detection is of a picture that the JSON does not have.
    """
    return evaluate(*load(coco_json, detections, iou_type, categories), iou_type, categories)


def load(
    coco_json: Mapping, detections: Sequence[Mapping], iou_type: str, categories: Categories
) -> tuple[COCO, COCO]:
    """What is compared, indexed for :func:`evaluate`; see :func:`evaluate_detections`."""
    # COCO's evaluation takes ids for whole numbers.
    numbers = {image["id"]: number for number, image in enumerate(coco_json["images"], start=1)}
    ground_truth = _index(_complete(coco_json, categories, numbers))
    # With a box in it, the size of a detection would be that of its box also for masks.
    dropped = "bbox" if iou_type == "segm" else "segmentation"
    results = [
        {
            **{key: value for key, value in item.items() if key != dropped},
            "image_id": _number_of(item, numbers),
        }
        for item in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        if not results:  # which loadRes of old versions of faster-coco-eval cannot load
            return ground_truth, COCO({**ground_truth.dataset, "annotations": []})
        return ground_truth, ground_truth.loadRes(results)


def evaluate(
    ground_truth: COCO, results: COCO, iou_type: str, categories: Categories
) -> AveragePrecision:
    """Compare what :func:`load` has loaded."""
    instances = Counter(
        annotation["category_id"]
        for annotation in ground_truth.dataset["annotations"]
        if not annotation["iscrowd"]
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval_faster(ground_truth, results, iou_type, print_function=_silent)
        # Its tasks, a picture and a class each, are too small for threads to pay.
        evaluation.rle_iou_max_workers = 1
        evaluation.params.catIds = list(categories.ids)
        evaluation.params.maxDets = [1, 10, max(100, _most_of_a_class(results))]
        evaluation.run()
    # (T IoU thresholds, R recalls, K classes, A areas, M numbers of detections)
    precision = evaluation.eval["precision"]
    stats = evaluation.stats[:6]
    summary = {name: _percent(value) for name, value in zip(SUMMARY, stats, strict=True)}
    per_class = {}
    for index, (category_id, key) in enumerate(categories.unique_names.items()):
        of_class = precision[:, :, index, 0, -1]
        per_class[key] = {
            "AP": _percent_mean(of_class),
            "AP50": _percent_mean(of_class[0]),
            "instances": instances[category_id],
        }
    return AveragePrecision(summary, per_class)


def _complete(coco_json: Mapping, categories: Categories, numbers: Mapping) -> dict:
    """A copy with what COCO's evaluation needs: iscrowd, ids from 1 (0 means unmatched there)."""
    annotations = [
        {"iscrowd": 0, **annotation, "id": number, "image_id": _number_of(annotation, numbers)}
        for number, annotation in enumerate(coco_json["annotations"], start=1)
    ]
    return {
        **coco_json,
        "images": [{**image, "id": numbers[image["id"]]} for image in coco_json["images"]],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in categories.to_mapping().items()],
    }


def _number_of(item: Mapping, numbers: Mapping) -> int:
    """Of the picture that a detection or an annotation is of."""
    try:
        return numbers[item["image_id"]]
    except KeyError:
        what = "a detection" if "score" in item else "an annotation"
        raise UserError(
            f"{what} is of image_id {item['image_id']!r}, which is no image of the JSON that it is"
            " compared with"
        ) from None


def _most_of_a_class(results: COCO) -> int:
    """The largest number of detections of one class in one picture."""
    found = Counter((x["image_id"], x["category_id"]) for x in results.dataset["annotations"])
    return max(found.values(), default=0)


def _index(dataset: dict) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(dataset)
        for annotation in index.dataset["annotations"]:
            if "area" not in annotation:
                annotation["area"] = float(index.annToMask(annotation).sum())
    return index


def _silent(*args, **kwargs) -> None:
    """faster-coco-eval's progress texts; the console has a table instead."""


def _percent(value: float) -> float:
    return math.nan if value < 0 else 100 * float(value)


def _percent_mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return 100 * float(valid.mean()) if valid.size else math.nan


def _or_none(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
