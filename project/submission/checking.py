"""Check a submission file, a JSON list of COCO results, against the test JSON that it is for."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from tabulate import tabulate

from project.data.checking.masks import inspect_mask, is_number
from project.data.checking.problems import KINDS as MASK_KINDS
from project.data.checking.problems import Kind, Severity, error_kinds

MAX_DETECTIONS = 100  # of a class in an image
_PIXEL_TOLERANCE = 1.0
_APART = 0.4  # IoU of boxes and their masks' extents; some 0.8 for a trained model
REQUIRED = ("image_id", "category_id", "bbox", "score", "segmentation")


KINDS: dict[str, Kind] = {
    **error_kinds(
        not_a_list="a submission is a list of detections",
        empty="there is no detection",
        not_an_object="a detection is no JSON object",
        key_missing="a detection lacks a key",
        image_id_type="image_id is not of the type that the test JSON has",
        image_id_unknown="the test JSON has no image with this id",
        category_id_type="category_id is no whole number",
        category_id_unknown="the test JSON has no category with this id",
        score_type="a score is no number",
        score_range="a score is not in 0 to 1",
        bbox_shape="bbox is no list of four numbers: x, y, width, height",
        bbox_nan="bbox has NaN or infinity",
        bbox_empty="bbox has no width or height",
        bbox_outside="bbox leaves the picture (are these corners, or pixels of a resized picture?)",
        bbox_relative="every bbox is within 0 and 1: fractions of the size, not pixels",
        boxes_and_masks_apart=(
            "most boxes are not where their masks are (RLE runs down the columns, bbox is x, y,"
            " width, height)"
        ),
        mask_not_rle="segmentation is no RLE: polygons, say",
        mask_counts="an RLE's counts are no text: COCO's evaluation wants compressed RLE",
        twice="a detection is there twice",
    ),
    **{
        kind: Kind(Severity.ERROR, MASK_KINDS[kind].meaning)
        for kind in (
            *("rle-incomplete", "rle-size", "rle-size-swapped", "rle-negative", "rle-broken"),
            *("rle-sum", "rle-not-integers"),
        )
    },
    "too-many": Kind(
        Severity.WARNING,
        f"an image has more than {MAX_DETECTIONS} detections of a category: COCO's evaluation"
        " leaves out the less certain ones",
    ),
    "mask-empty": Kind(Severity.WARNING, "no pixel is in the mask, so nothing is found with it"),
    "image-without-detections": Kind(Severity.NOTE, "an image has no detections"),
    "category-without-detections": Kind(Severity.NOTE, "a category has no detections"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a submission, and where.

    Attributes:
        kind: a key of :data:`KINDS`.
        detail: what was found.
        index: of the detection in the list, from 0; None where it is not one.
        image_id: of that detection, or of an image.
    """

    kind: str
    detail: str = ""
    index: int | None = None
    image_id: object = None

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    def place(self) -> str:
        """Where it is, for people."""
        words = [] if self.index is None else [f"detection {self.index}"]
        words += [] if self.image_id is None else [f"image {self.image_id!r}"]
        return ", ".join(words)


def check_submission(submission: object, test_json: Mapping) -> list[Problem]:
    """All that is wrong with a submission.

    Args:
        submission: content of the file.
        test_json: content of a COCO JSON with "images" and "categories".
    """
    if not isinstance(submission, list):
        return [Problem("not-a-list", f"here it is {type(submission).__name__}")]
    if not submission:
        return [Problem("empty")]
    images = {image["id"]: image for image in test_json["images"]}
    categories = {category["id"]: category["name"] for category in test_json["categories"]}
    problems = []
    for index, detection in enumerate(submission):
        image_id = detection.get("image_id") if isinstance(detection, Mapping) else None
        for kind, *detail in _inspect(detection, images, categories):
            problems.append(Problem(kind, *detail, index=index, image_id=image_id))
    sound = [item for item in submission if _has_sound_ids(item, images, categories)]
    problems += _inspect_whole(submission, sound)
    found = Counter(item["image_id"] for item in sound)
    of_category = Counter((item["image_id"], item["category_id"]) for item in sound)
    problems += [
        Problem("too-many", f"{number} of category {category_id}", image_id=image_id)
        for (image_id, category_id), number in of_category.items()
        if number > MAX_DETECTIONS
    ]
    problems += [
        Problem("image-without-detections", str(image.get("file_name", "")), image_id=image_id)
        for image_id, image in images.items()
        if not found[image_id]
    ]
    used = {item["category_id"] for item in sound}
    problems += [
        Problem("category-without-detections", f"{category_id} {name!r}")
        for category_id, name in categories.items()
        if category_id not in used
    ]
    return problems


def _has_sound_ids(detection: object, images: Mapping, categories: Mapping) -> bool:
    if not isinstance(detection, Mapping):
        return False
    image_id, category_id = detection.get("image_id"), detection.get("category_id")
    return (
        is_id(image_id)
        and image_id in images
        and is_id(category_id, int)
        and (category_id in categories)
    )


def is_id(value: object, *types: type) -> bool:
    """Whether a value of a JSON is a whole number or a text, or one of ``types``."""
    return isinstance(value, types or (int, str)) and not isinstance(value, bool)


def _inspect(detection: object, images: Mapping, categories: Mapping) -> Iterator[tuple]:
    """The kind, and perhaps the detail, of what is wrong with one detection by itself."""
    if not isinstance(detection, Mapping):
        yield "not-an-object", repr(detection)[:60]
        return
    missing = [key for key in REQUIRED if key not in detection]
    if missing:
        yield "key-missing", ", ".join(missing)
    image = None
    if "image_id" in detection:
        image_id = detection["image_id"]
        if not is_id(image_id, *{type(known) for known in images}):
            yield "image-id-type", repr(image_id)[:40]
        elif image_id not in images:
            yield "image-id-unknown", repr(image_id)[:40]
        else:
            image = images[image_id]
    if "category_id" in detection:
        category_id = detection["category_id"]
        if not is_id(category_id, int):
            yield "category-id-type", repr(category_id)[:40]
        elif category_id not in categories:
            yield "category-id-unknown", str(category_id)
    if "score" in detection:
        score = detection["score"]
        if not is_number(score):
            yield "score-type", repr(score)[:40]
        elif not 0 <= score <= 1:  # which NaN is not
            yield "score-range", str(score)
    if "bbox" in detection:
        yield from _inspect_box(detection["bbox"], image)
    if "segmentation" in detection:
        yield from _inspect_mask(detection["segmentation"], image)


def is_size(value: object) -> bool:
    """Whether a value of a JSON is the height or the width of a picture."""
    return type(value) is int and value > 0


def size_of(segmentation: object) -> tuple[int, int] | None:
    """The height and width that an RLE says; None where it says none, or is no RLE."""
    size = segmentation.get("size") if isinstance(segmentation, Mapping) else None
    is_sound = isinstance(size, list) and len(size) == 2 and all(map(is_size, size))
    return tuple(size) if is_sound else None


def _inspect_box(box: object, image: Mapping | None) -> Iterator[tuple]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        yield "bbox-shape", repr(box)[:60]
        return
    if not all(map(math.isfinite, box)):
        yield "bbox-nan", str(box)
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield "bbox-empty", str(box)
    elif image is not None:
        beyond = max(-x, -y, x + width - image["width"], y + height - image["height"])
        if beyond > _PIXEL_TOLERANCE:
            yield "bbox-outside", f"{box} in {image['width']} x {image['height']}"


def _inspect_mask(segmentation: object, image: Mapping | None) -> Iterator[tuple]:
    if not isinstance(segmentation, Mapping):
        yield "mask-not-rle", repr(segmentation)[:40]
    elif "counts" in segmentation and not isinstance(segmentation["counts"], str):
        yield "mask-counts", type(segmentation["counts"]).__name__
    elif image is not None:
        yield from inspect_mask(segmentation, image["height"], image["width"]).problems


def _inspect_whole(submission: Sequence, sound: Sequence[Mapping]) -> Iterator[Problem]:
    """What only several detections together show."""
    seen: dict[str, int] = {}
    for index, detection in enumerate(submission):
        first = seen.setdefault(repr(detection), index)
        if first != index:
            image_id = detection.get("image_id") if isinstance(detection, Mapping) else None
            yield Problem("twice", f"as detection {first}", index=index, image_id=image_id)
    boxes = [item["bbox"] for item in sound if not list(_inspect_box(item.get("bbox"), None))]
    if boxes and np.max(boxes) <= 1:
        yield Problem("bbox-relative")
        return
    ious = []
    for item in sound:
        rle, box = item.get("segmentation"), item.get("bbox")
        size = size_of(rle)
        if size is None or list(_inspect_box(box, None)):
            continue
        if list(_inspect_mask(rle, dict(zip(("height", "width"), size, strict=True)))):
            continue
        extent = coco_mask.toBbox(rle)
        ious.append(coco_mask.iou(extent[None], np.array([box], dtype=float), [0])[0, 0])
    if ious and np.median(ious) < _APART:
        yield Problem("boxes-and-masks-apart", f"the median IoU is {np.median(ious):.2f}")


def problem_table(problems: Sequence[Problem], shown: int = 3) -> str:
    """A row for each kind, the errors first, and the first ``shown`` places of each."""
    by_kind: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    rows = []
    for kind in sorted(by_kind, key=lambda kind: list(Severity).index(KINDS[kind].severity)):
        found = by_kind[kind]
        rows.append([KINDS[kind].severity.value, kind, len(found), KINDS[kind].meaning])
        for problem in found[:shown]:
            words = ": ".join(filter(None, (problem.place() or "the whole", problem.detail)))
            rows.append(["", "", "", f"  {words}"])
        if len(found) > shown:
            rows.append(["", "", "", f"  and {len(found) - shown} more"])
    headers = ["", "problem", "number", "what and where"]
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)


def class_table(submission: Sequence[Mapping], test_json: Mapping) -> str:
    """Detections, images, scores and sizes of each category of a sound submission."""
    by_category: dict[int, list[Mapping]] = defaultdict(list)
    for detection in submission:
        by_category[detection["category_id"]].append(detection)
    rows = []
    for category in test_json["categories"]:
        found = by_category[category["id"]]
        scores = [detection["score"] for detection in found]
        areas = [coco_mask.area(detection["segmentation"]) for detection in found]
        middle = [np.median(scores), np.median(areas) ** 0.5] if found else [None, None]
        images = len({detection["image_id"] for detection in found})
        sure = sum(score >= 0.5 for score in scores)
        rows.append([category["id"], category["name"], len(found), sure, images, *middle])
    headers = ["id", "category", "detections", "score >= 0.5", "images", "median score"]
    headers.append("median side (pixels)")
    formats = (*[""] * 5, ".2f", ".0f")
    return tabulate(rows, headers=headers, tablefmt="simple", floatfmt=formats)
