"""The page itself: tables and charts of a run, or of two, and the gallery."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2
import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from project.errors import UserError
from project.evaluation.coco_metrics import SUMMARY
from project.evaluation.error_analysis import ERRORS, Kind
from project.report.charts import Curve, calibration_chart, line_chart
from project.report.gallery import choose_pictures, gallery_records
from project.report.runs import EvaluatedRun

IOU_TYPES = {"bbox": "box", "segm": "mask"}
MEANINGS = {
    Kind.CLASSIFICATION: "the mask fits an object of another class",
    Kind.LOCALISATION: "the class is right, the mask fits by less than half (IoU 0.1 to 0.5)",
    Kind.BOTH: "an object of another class, and the mask fits by less than half",
    Kind.DUPLICATE: "the object was found already, by a more certain detection",
    Kind.BACKGROUND: "there is no object (IoU below 0.1)",
    Kind.MISSED: "an object that nothing found, nor nearly",
}


def render_report(
    run: EvaluatedRun,
    other: EvaluatedRun | None = None,
    *,
    max_pictures: int = 1000,
    progress: bool = False,
) -> str:
    """The report as one HTML text that needs no other file.

    Args:
        other: a run on the same pictures to compare with.
        max_pictures: how many the gallery shows at most.
        progress: show a progress bar.

    Raises:
        UserError: the two runs are not of the same pictures and classes, or a picture cannot be
            read.
    """
    if other is not None:
        _require_same_data(run, other)
    runs = {"this run": run} if other is None else {"this run": run, "other": other}
    pictures = choose_pictures(run, max_pictures)
    records = gallery_records(pictures, run, other)
    gallery = list(tqdm(records, total=len(pictures), unit="picture", disable=not progress))
    folder = files("project.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {
        "classes": run.categories.names,
        "kinds": [Kind.CORRECT, *ERRORS],
        "pictures": gallery,
        "compares": other is not None,
    }
    return environment.get_template("page.html").render(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        # A "</script>" in a file name would end the script.
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        title=f"{run.folder.resolve().name}, {run.dataset}",
        run=run,
        other=other,
        facts=_facts(run),
        summary=_summary(run, other),
        sizes=_sizes(run),
        charts={name: Markup(svg) for name, svg in _charts(runs).items()},
        errors=_errors(run, other),
        classes=_classes(run, other),
        confusion=_confusion(run),
        class_names=run.categories.names,
        shown=len(gallery),
        total=len(run.coco_json["images"]),
    )


def _require_same_data(run: EvaluatedRun, other: EvaluatedRun) -> None:
    names, others = (
        {image["id"]: image["file_name"] for image in one.coco_json["images"]}
        for one in (run, other)
    )
    if names != others:
        raise UserError(
            f"{run.folder} was evaluated on {run.dataset}, {other.folder} on {other.dataset}: other"
            " pictures; evaluate both on the same set, or choose it with --dataset"
        )
    if run.categories != other.categories:
        difference = run.categories.difference(other.categories)
        raise UserError(f"{run.folder} and {other.folder} differ in their classes: {difference}")


def _facts(run: EvaluatedRun) -> dict[str, str]:
    """What was run, for the head of the page."""
    record = run.record
    facts = {
        "folder": str(run.folder.resolve()),
        "data set": f"{run.dataset}, {len(run.coco_json['images'])} pictures,"
        f" {len(run.errors.objects)} objects of {len(run.categories.ids)} classes",
        "iterations": str(run.evaluation.get("iteration")),
    }
    if record:
        facts |= {
            "command": " ".join(record["command"]),
            "started": record.get("start", ""),
            "ended": f"{record.get('end', '')}, {record.get('exit', '')}",
            "devices": f"{', '.join(record['devices'])}; {record['processes']} process(es)",
            "speed": f"{record.get('images_per_second', '?')} pictures a second",
            "memory": f"{record.get('peak_memory_mib', '?')} MiB at most",
            "versions": ", ".join(f"{name} {v}" for name, v in record["versions"].items()),
            "commit": record.get("git_commit") or "not known",
        }
    return facts


def _summary(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
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


def _sizes(run: EvaluatedRun) -> str:
    """How many objects are small, medium and large."""
    areas = [a["area"] for a in run.coco_json["annotations"] if not a.get("iscrowd")]
    numbers = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0]
    return (
        f"{numbers[0]} objects are small (below 32² pixels), {numbers[1]} medium,"
        f" {numbers[2]} large (above 96² pixels)"
    )


def _errors(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
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


def _classes(run: EvaluatedRun, other: EvaluatedRun | None) -> list[dict]:
    """AP of each class, its errors from the threshold on, and its curve of precision and recall."""
    errors: dict[int, Counter] = {category_id: Counter() for category_id in run.categories.ids}
    for picture in run.pictures.values():
        for found in picture.found:
            errors[found.category_id][found.kind] += 1
        for truth in picture.missed:
            errors[truth.category_id][Kind.MISSED] += 1
    rows = []
    for category_id, name in run.categories.to_mapping().items():
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


def _confusion(run: EvaluatedRun) -> list[list[dict]]:
    """Counts, and their share of the row's sum."""
    matrix = run.errors.confusion(run.threshold)
    sums = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return [
        [{"number": int(n), "share": float(s)} for n, s in zip(*rows, strict=True)]
        for rows in zip(matrix, matrix / sums, strict=True)
    ]


def _charts(runs: Mapping[str, EvaluatedRun]) -> dict[str, str]:
    charts = {}
    several = len(runs) > 1
    losses, rates, scores = {}, {}, {}
    for name, run in runs.items():
        suffix = f", {name}" if several else ""
        keys = [k for k in _keys(run.metrics) if k == "total_loss" or k.startswith("loss_")]
        for key in ["total_loss"] if several else sorted(keys, reverse=True):
            losses[key + suffix] = _curve(run.metrics, key)
        rates["learning rate" + suffix] = _curve(run.metrics, "lr")
        for iou_type, label in IOU_TYPES.items():
            # With several test sets, names begin with that of the set.
            for key in (f"{iou_type}/AP", f"{run.dataset}/{iou_type}/AP"):
                if key in _keys(run.metrics):
                    scores[f"{label} AP{suffix}"] = _curve(run.metrics, key)
    by_iteration = {"x_label": "iteration"}
    if any(len(x) for x, _ in losses.values()):
        charts["Losses"] = line_chart(losses, y_label="loss", **by_iteration)
        charts["Learning rate"] = line_chart(rates, y_label="learning rate", **by_iteration)
    if scores:
        charts["AP over time"] = line_chart(scores, y_label="AP", dotted=True, **by_iteration)
    recalls = np.linspace(0, 1, 101)
    means, faint = {}, []
    for name, run in runs.items():
        curves = [run.errors.precision_recall(i) for i in run.categories.ids]
        curves = [curve for curve in curves if curve is not None]
        if curves:
            means[f"mean of classes, {name}"] = recalls, np.mean(curves, axis=0)
        if not several:
            faint = [(recalls, curve) for curve in curves]
    charts["Precision and recall, IoU 0.5"] = line_chart(
        means, x_label="recall", y_label="precision", faint=faint, y_range=(0, 1.02)
    )
    charts["Calibration of scores, IoU 0.5"] = calibration_chart(
        {name: run.errors.calibration() for name, run in runs.items()}
    )
    return charts


def _keys(metrics: Sequence[Mapping]) -> set[str]:
    return {key for line in metrics for key in line}


def _curve(metrics: Sequence[Mapping], key: str) -> Curve:
    points = [(line["iteration"], line[key]) for line in metrics if line.get(key) is not None]
    return tuple(zip(*points, strict=True)) if points else ((), ())
