"""Check a COCO JSON, and make of it what can be used."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from project.data.checking.boxes import inspect_area, inspect_box
from project.data.checking.ids import (
    FreshIds,
    ambiguous_ids,
    as_number,
    is_integer,
    readings,
    without_point,
)
from project.data.checking.masks import InspectedMask, inspect_mask
from project.data.checking.pictures import Header
from project.data.checking.problems import Problem, Severity

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


@dataclass
class Inspection:
    """A COCO JSON that was checked.

    Attributes:
        problems: in the order of the JSON.
        content: what is left after the remedies: records with errors are left out, the others are
            complete. What needs no remedy is the object that was checked, not a copy.
    """

    problems: list[Problem]
    content: dict

    @property
    def errors(self) -> list[Problem]:
        """What training refuses."""
        return [problem for problem in self.problems if problem.severity is Severity.ERROR]


def inspect_content(content: Mapping, headers: Mapping[str, Header]) -> Inspection:
    """Check the content of a COCO JSON.

    Args:
        content: with a list of "images"; all the rest is checked here.
        headers: of the pictures in the folder, by file name.
    """
    return _Inspector(headers).run(content)


class _Inspector:
    def __init__(self, headers: Mapping[str, Header]):
        self.headers = headers
        self.problems: list[Problem] = []
        self.images_left_out: set = set()

    def add(self, kind: str, detail: object = "", **place: object) -> None:
        self.problems.append(Problem(kind, str(detail), **place))

    def run(self, content: Mapping) -> Inspection:
        categories = self._categories(content.get("categories"))
        images = self._images(content["images"])
        annotations = content.get("annotations")
        if annotations is None:
            self.add("annotations-missing")
        elif not isinstance(annotations, list):
            self.add("annotations-type", type(annotations).__name__)
            annotations = []
        whole = {**content, "categories": categories, "images": images}
        if annotations is not None:
            whole["annotations"] = self._annotations(annotations, images, categories)
            self._counts(whole)
        else:
            whole.pop("annotations", None)
        return Inspection(self.problems, whole)

    # ---- categories

    def _categories(self, categories: object) -> list[dict]:
        if not isinstance(categories, list) or not categories:
            self.add("categories-missing")
            return []
        kept = []
        ids, names = Counter(), Counter()
        ambiguous = ambiguous_ids(
            (as_number(x.get("id")), x.get("name")) for x in _mappings(categories)
        )
        for number, category in enumerate(categories):
            if not isinstance(category, Mapping):
                self.add("category-not-an-object", repr(category)[:40])
                continue
            category_id, name = category.get("id"), category.get("name")
            if category_id is None:
                self.add("category-id-missing", f"number {number}, {name!r}")
                continue
            if as_number(category_id) is not category_id:
                self.add("category-id-text", repr(category_id), category_id=category_id)
                category_id = as_number(category_id)
                category = {**category, "id": category_id}
            if not is_integer(category_id):
                self.add("category-id-type", repr(category_id)[:40], category_id=category_id)
                continue
            if not isinstance(name, str) or not name.strip():
                self.add("category-name-missing", category_id=category_id)
                continue
            if ids[category_id] or category_id in ambiguous:
                self.add("category-id-twice", repr(name), category_id=category_id)
                continue
            if names[name]:
                self.add("category-name-twice", repr(name), category_id=category_id)
            ids[category_id] += 1
            names[name] += 1
            kept.append(category)
        self._category_names(names, sorted(ids))
        return kept

    def _category_names(self, names: Counter, ids: list[int]) -> None:
        if ids and ids != list(range(1, len(ids) + 1)):
            self.add("category-gaps", f"{len(ids)} categories with ids {ids[0]} to {ids[-1]}")
        if len(names.keys() & set(VOC_NAMES)) * 2 > len(names):
            # A data set of VOC's classes: another spelling would be a class of its own.
            plain = {_letters(name): name for name in VOC_NAMES}
            for name in names.keys() - set(VOC_NAMES):
                if _letters(name) in plain:
                    self.add("category-name-voc", f"{name!r}, there {plain[_letters(name)]!r}")

    # ---- images

    def _images(self, images: list) -> list[dict]:
        kept = []
        ids: set = set()
        files: dict[str, object] = {}
        ambiguous = ambiguous_ids((x.get("id"), x.get("file_name")) for x in _mappings(images))
        for number, image in enumerate(images):
            if not isinstance(image, Mapping):
                self.add("image-not-an-object", f"number {number}: {image!r}"[:60])
                continue
            name, image_id = image.get("file_name"), image.get("id")
            place = {"file_name": name if isinstance(name, str) else None, "image_id": image_id}
            if without_point(image_id) is not image_id:
                self.add("image-id-float", repr(image_id), **place)
                image_id = without_point(image_id)
                image = {**image, "id": image_id}
            kind = _file_name_defect(name)
            if image_id is None:
                self.add("image-id-missing", f"number {number}", **place)
            elif not (is_integer(image_id) or isinstance(image_id, str)):
                self.add("image-id-type", repr(image_id)[:40], **place)
            elif image_id in ids or image_id in ambiguous:
                self.add("image-id-twice", **place)
            elif kind is not None:
                self.add(kind, repr(name)[:80], **place)
            else:
                if name in files:
                    self.add("file-name-twice", f"also image {files[name]}", **place)
                complete = self._with_size(image, place)
                if complete is not None:
                    ids.add(image_id)
                    files[name] = image_id
                    kept.append(complete)
                    continue
            if isinstance(image_id, (int, str, float)) and image_id not in ids:
                self.images_left_out.add(image_id)
        return kept

    def _with_size(self, image: Mapping, place: dict) -> dict | None:
        """The image with width and height; None where it must be left out."""
        header = self.headers.get(image["file_name"], Header(kind="image-missing"))
        if header.kind is not None:
            self.add(header.kind, header.detail, **place)
            return None
        for kind, detail in header.remarks:
            self.add(kind, detail, **place)
        size = [image.get("width"), image.get("height")]
        stated, real = [_as_float(side) for side in size], [header.width, header.height]
        if any(x > 0 and abs(x - y) >= 1 for x, y in zip(stated, real, strict=True)):
            before_rotation = header.rotated and stated == real[::-1]
            there = f"{header.width} x {header.height}"
            self.add(
                "image-exif-size" if before_rotation else "image-size-differs",
                f"JSON {size[0]} x {size[1]}, file {there}",
                **place,
            )
            return None
        if not all(_is_size(side) for side in size):
            kind = "image-size-missing" if None in size else "image-size-invalid"
            self.add(kind, f"width {size[0]!r}, height {size[1]!r}", **place)
            if header.rotated or header.unclear:
                self.add("image-exif-unclear", **place)
            return {**image, "width": header.width, "height": header.height}
        if header.unclear:
            self.add("image-exif-unclear", **place)
        elif header.rotated:
            self.add("image-exif-rotated", **place)
        return image

    # ---- annotations

    def _annotations(self, annotations: list, images: list[dict], categories: list) -> list[dict]:
        images_by_id = {image["id"]: image for image in images}
        category_ids = {category["id"] for category in categories}
        ids = FreshIds(annotations)
        seen: dict[int, dict] = {}
        kept = []
        for number, annotation in enumerate(annotations):
            if not isinstance(annotation, Mapping):
                self.add("annotation-not-an-object", f"number {number}: {annotation!r}"[:60])
                continue
            repaired = self._annotation(annotation, images_by_id, category_ids, ids)
            if repaired is None:
                continue
            twin = self._twin(repaired, seen)
            if twin is not None:
                place = self._place(repaired, images_by_id)
                self.add("annotation-duplicate", f"of annotation {twin['id']}", **place)
                continue
            kept.append(repaired)
        return kept

    @staticmethod
    def _twin(annotation: dict, seen: dict[int, dict]) -> dict | None:
        """An earlier annotation of the same object; ``seen`` remembers this one."""
        keys = ("image_id", "category_id", "bbox", "segmentation")
        key = hash((annotation["image_id"], annotation["category_id"], *annotation["bbox"]))
        while key in seen:
            other = seen[key]
            if all(other[name] == annotation[name] for name in keys):
                return other
            key += 1
        seen[key] = annotation
        return None

    @staticmethod
    def _place(annotation: Mapping, images_by_id: Mapping) -> dict:
        image_id = annotation.get("image_id")
        try:
            image = images_by_id.get(image_id, {})
        except TypeError:  # a list, say
            image = {}
        return {
            "file_name": image.get("file_name"),
            "image_id": image_id,
            "annotation_id": annotation.get("id"),
        }

    def _annotation(
        self, annotation: Mapping, images: Mapping, categories: set[int], ids: FreshIds
    ) -> dict | None:
        """The complete annotation; None where it must be left out."""
        place = self._place(annotation, images)
        changes: dict[str, object] = {}
        image_id = self._known_id(annotation, "image", images, place, changes)
        category_id = self._known_id(annotation, "category", categories, place, changes)
        if image_id is None or category_id is None:
            return None
        problem, new_id = ids.take(annotation.get("id"))
        if problem is not None:
            self.add(problem, f"{annotation.get('id')!r}, now {new_id}"[:60], **place)
            changes["id"] = new_id
        image = images[image_id]
        height, width = image["height"], image["width"]
        if annotation.get("segmentation") is None:
            self.add("mask-missing", **place)
            return None
        mask = inspect_mask(annotation["segmentation"], height, width)
        for kind, detail in mask.problems:
            self.add(kind, detail, **place)
        if mask.segmentation is None:
            return None
        if mask.segmentation is not annotation["segmentation"]:
            changes["segmentation"] = mask.segmentation
        for key, problem, value in (
            *self._crowd(annotation, mask),
            *inspect_box(annotation, mask, height, width),
            *inspect_area(annotation, mask),
        ):
            self.add(*problem, **place)
            if value is not None:
                changes[key] = value
        return {**annotation, **changes} if changes else annotation

    def _known_id(
        self, annotation: Mapping, what: str, known, place: dict, changes: dict
    ) -> object | None:
        key = f"{what}_id"
        value = annotation.get(key)
        if value is None:
            self.add(f"annotation-{what}-missing", **place)
            return None
        if type(value) in (int, str) and value in known:
            return value
        for candidate in readings(value):
            if candidate in known:
                if candidate is not value:
                    self.add(f"annotation-{what}-text", repr(value), **place)
                    changes[key] = candidate
                return candidate
        if what == "image" and any(v in self.images_left_out for v in readings(value)):
            return None  # left out with its image, which was named
        self.add(f"annotation-{what}-unknown", repr(value)[:40], **place)
        return None

    def _crowd(self, annotation: Mapping, mask: InspectedMask) -> Iterator[tuple]:
        crowd = annotation.get("iscrowd")
        if crowd is None:
            yield "iscrowd", ("crowd-missing",), 0
        elif crowd not in (0, 1) or isinstance(crowd, bool):
            yield "iscrowd", ("crowd-invalid", repr(crowd)[:40]), int(crowd in (True, "1", "true"))
        elif crowd == 1 and isinstance(mask.segmentation, list):
            yield "iscrowd", ("crowd-polygon",), None

    # ---- the whole

    def _counts(self, content: Mapping) -> None:
        used = Counter(a["category_id"] for a in content["annotations"])
        for category in content["categories"]:
            if category["id"] not in used:
                detail = repr(category["name"])
                self.add("category-without-objects", detail, category_id=category["id"])
        with_objects = {a["image_id"] for a in content["annotations"]}
        for image in content["images"]:
            if image["id"] not in with_objects:
                self.add(
                    "image-without-objects", file_name=image["file_name"], image_id=image["id"]
                )


def _mappings(items: Iterable) -> Iterator[Mapping]:
    return (item for item in items if isinstance(item, Mapping))


def _file_name_defect(name: object) -> str | None:
    if name is None or name == "":
        return "file-name-missing"
    if not isinstance(name, str):
        return "file-name-type"
    # Plain names are by far the most.
    if ("/" in name or "\\" in name or ":" in name or name == "..") and (
        PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).anchor
        or ".." in PureWindowsPath(name).parts
    ):
        return "file-name-escapes"
    return None


def _is_size(side: object) -> bool:
    return is_integer(side) and side > 0


def _as_float(side: object) -> float:
    """A number, however it is written; NaN for what is none."""
    try:
        return float(side)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def _letters(name: str) -> str:
    """For comparison: "Dining table" and "diningtable" are one."""
    return "".join(character for character in name.lower() if character.isalnum())
