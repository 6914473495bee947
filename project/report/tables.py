"""The tables of the page, as plain values."""

from collections import Counter

import numpy as np

from project.evaluation.coco_metrics import IOU_TYPES, SUMMARY
from project.evaluation.error_analysis import ERRORS, Kind
from project.report.runs import EvaluatedRun

MEANINGS = {
    Kind.CLASSIFICATION: "the mask fits an object of another class",
    Kind.LOCALISATION: "the class is right, the mask fits by less than half (IoU 0.1 to 0.5)",
    Kind.BOTH: "an object of another class, and the mask fits by less than half",
    Kind.DUPLICATE: "the object was found already, by a more certain detection",
    Kind.BACKGROUND: "there is no object (IoU below 0.1)",
    Kind.MISSED: "an object that nothing found, nor nearly",
}


def run_facts(run: EvaluatedRun) -> dict[str, str]:
    """What was run, for the head of the page."""
    record = run.record
    iteration = run.evaluation.get("iteration")
    facts = {
        "folder": str(run.folder.resolve()),
        "data set": f"{run.dataset}, {len(run.coco_json['images'])} pictures,"
        f" {len(run.errors.objects)} objects of {len(run.categories.ids)} classes",
        "iterations": "not known" if iteration is None else str(iteration),
    }
    if record:
        facts |= {
            "command": " ".join(record["command"]),
            "started": record.get("start", ""),
            "ended": f"{record.get('end', '')}, {record.get('exit', '')}",
            "devices": f"{', '.join(record['devices'])}; {record['processes']} process(es)",
            "dtype": record.get("dtype", "not recorded"),
            "speed": f"{record.get('images_per_second') or '?'} pictures a second",
            "memory": f"{record.get('peak_memory_mib', '?')} MiB at most",
            "versions": ", ".join(f"{name} {v}" for name, v in record["versions"].items()),
            "commit": record.get("git_commit") or "not known",
        }
    return facts


def summary_table(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
    """Box and mask AP in all and by size: value, and that of the other run."""
    return [
        {
            "name": label,
            "values": [
                (
                    run.evaluation[iou_type][key],
                    other.evaluation[iou_type][key] if other is not None else None,
                )
                for key in SUMMARY
            ],
        }
        for iou_type, label in IOU_TYPES.items()
    ]


def object_sizes(run: EvaluatedRun) -> str:
    """How many objects are small, medium and large."""
    areas = [a["area"] for a in run.coco_json["annotations"] if not a.get("iscrowd")]
    numbers = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0]
    return (
        f"{numbers[0]} objects are small (below 32² pixels), {numbers[1]} medium,"
        f" {numbers[2]} large (above 96² pixels)"
    )


def errors_table(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
    """Number and cost of each kind of error."""
    counts = Counter(found.kind for found in run.errors.detections)
    counts[Kind.MISSED] = len(run.errors.missed())
    return [
        {
            "kind": kind,
            "meaning": MEANINGS[kind],
            "number": counts[kind],
            "cost": run.errors.cost(kind),
            "other": other.errors.cost(kind) if other is not None else None,
        }
        for kind in ERRORS
    ]


def classes_table(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
    """AP of each class, its errors from the threshold on, and its curve of precision and recall."""
    errors: dict[int, Counter] = {category_id: Counter() for category_id in run.categories.ids}
    for picture in run.pictures.values():
        for found in picture.found:
            errors[found.category_id][found.kind] += 1
        for truth in picture.missed:
            errors[truth.category_id][Kind.MISSED] += 1
    rows = []
    for category_id, name in run.categories.unique_names.items():
        of_class = {t: run.evaluation[t]["per_class"][name] for t in IOU_TYPES}
        theirs = other.evaluation["segm"]["per_class"][name]["AP"] if other is not None else None
        precision = run.errors.precision_recall(category_id)
        rows.append(
            {
                "name": name,
                "objects": of_class["segm"]["instances"],
                "mask": of_class["segm"]["AP"],
                "other": theirs,
                "mask50": of_class["segm"]["AP50"],
                "box": of_class["bbox"]["AP"],
                "errors": [errors[category_id][kind] for kind in (Kind.CORRECT, *ERRORS)],
                "curve": "" if precision is None else _sparkline(precision),
            }
        )
    return rows


def _sparkline(precision: np.ndarray) -> str:
    """Points of an SVG polyline in a box of 100 x 30."""
    points = zip(np.arange(len(precision)), 30 * (1 - precision), strict=True)
    return " ".join(f"{x},{y:.1f}" for x, y in points)


def confusion_table(run: EvaluatedRun) -> list[list[dict]]:
    """Counts, and their share of the row's sum."""
    matrix = run.errors.confusion(run.threshold)
    sums = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return [
        [{"number": int(n), "share": float(s)} for n, s in zip(*rows, strict=True)]
        for rows in zip(matrix, matrix / sums, strict=True)
    ]
