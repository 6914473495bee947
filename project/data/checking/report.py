"""What the checks found, for people and for programs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from project.data.categories import Categories
from project.data.checking.inspection import Inspection
from project.data.checking.problems import KINDS, Problem, Severity
from project.errors import UserError

SHOWN = 3


def by_kind(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Problems of each kind, errors first, in the order of :data:`KINDS`."""
    found: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.kind].append(problem)
    severities = list(Severity)
    order = {kind: number for number, kind in enumerate(KINDS)}
    return dict(
        sorted(
            found.items(),
            key=lambda item: (severities.index(KINDS[item[0]].severity), order[item[0]]),
        )
    )


def in_one_line(problems: Iterable[Problem]) -> str:
    """Such as "2 x image-missing (a.jpg, image 3; b.jpg, image 4)"."""
    words = []
    for kind, found in by_kind(problems).items():
        places = "; ".join(filter(None, (p.place() for p in found[:SHOWN])))
        more = "; ..." if len(found) > SHOWN else ""
        words.append(f"{len(found)} x {kind}" + (f" ({places}{more})" if places else ""))
    return ", ".join(words)


def require_no_errors(inspection: Inspection, source: Path) -> None:
    """Raise :class:`UserError` with the errors of a COCO JSON, if there are any."""
    if inspection.errors:
        raise UserError(
            f"{source}: {in_one_line(inspection.errors)}; python scripts/check_dataset.py says more"
        )


def problem_table(problems: Sequence[Problem], shown: int = SHOWN) -> str:
    """A row for each kind, and the first ``shown`` places of each with what was found there."""
    rows = []
    for kind, found in by_kind(problems).items():
        severity, meaning, remedy = KINDS[kind].severity, KINDS[kind].meaning, KINDS[kind].remedy
        rows.append([severity.value, kind, len(found), meaning, remedy])
        for problem in found[:shown]:
            detail = f": {problem.detail}" if problem.detail else ""
            rows.append(["", "", "", f"  {problem.place() or 'the JSON'}{detail}", ""])
        if len(found) > shown:
            rows.append(["", "", "", f"  and {len(found) - shown} more", ""])
    headers = ["", "problem", "number", "what and where", "when loaded, and with --fix"]
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)


def class_table(content: Mapping) -> str:
    """Objects and images of each category, without crowds."""
    rows = [
        [category, counts["objects"], counts["images"]]
        for category, counts in statistics(content)["categories"].items()
    ]
    return tabulate(rows, headers=["category", "objects", "images"], tablefmt="simple")


def statistics(content: Mapping) -> dict:
    """Counts and sizes of a data set that was checked.

    Returns:
        "images", "objects", "crowds", "images_without_objects"; "categories": name (see
        ``Categories.unique_names``) -> "objects" and "images"; "width", "height" of the pictures
        and "object_side" (the root of the area), in pixels: smallest, median and largest.
    """
    annotations = content.get("annotations", [])
    objects = [a for a in annotations if not a["iscrowd"]]
    categories = Categories.from_mapping({c["id"]: c["name"] for c in content["categories"]})
    found: dict[int, list] = {category_id: [] for category_id in categories.ids}
    for annotation in objects:
        found[annotation["category_id"]].append(annotation["image_id"])
    return {
        "images": len(content["images"]),
        "objects": len(objects),
        "crowds": len(annotations) - len(objects),
        "images_without_objects": len(content["images"])
        - len({a["image_id"] for a in annotations}),
        "categories": {
            name: {"objects": len(found[category_id]), "images": len(set(found[category_id]))}
            for category_id, name in categories.unique_names.items()
        },
        "width": _range(image["width"] for image in content["images"]),
        "height": _range(image["height"] for image in content["images"]),
        "object_side": _range(annotation["area"] ** 0.5 for annotation in objects),
    }


def _range(values: Iterable[float]) -> list[float]:
    array = np.array(list(values))
    if not array.size:
        return []
    return [round(float(value), 1) for value in (array.min(), np.median(array), array.max())]
