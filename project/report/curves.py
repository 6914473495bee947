"""The charts of a run, or of two in one."""

from collections.abc import Mapping, Sequence

import numpy as np

from project.evaluation.coco_metrics import IOU_TYPES
from project.evaluation.error_analysis import RECALLS
from project.report.charts import Curve, calibration_chart, line_chart
from project.report.runs import EvaluatedRun


def run_charts(runs: Mapping[str, EvaluatedRun]) -> dict[str, str]:
    """Title -> SVG. ``runs``: by the names that the legends have."""
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
            # With several test sets, names begin with that of the set; a resumed run may have both.
            names = {f"{iou_type}/AP", f"{run.dataset}/{iou_type}/AP"}
            if names & _keys(run.metrics):
                scores[f"{label} AP{suffix}"] = _curve(run.metrics, *names)
    by_iteration = {"x_label": "iteration"}
    if any(len(x) for x, _ in losses.values()):
        charts["Losses"] = line_chart(losses, y_label="loss", **by_iteration)
        charts["Learning rate"] = line_chart(rates, y_label="learning rate", **by_iteration)
    if scores:
        charts["AP over time"] = line_chart(scores, y_label="AP", dotted=True, **by_iteration)
    means, faint = {}, []
    for name, run in runs.items():
        curves = [run.errors.precision_recall(i) for i in run.categories.ids]
        curves = [curve for curve in curves if curve is not None]
        if curves:
            means[f"mean of classes, {name}"] = RECALLS, np.mean(curves, axis=0)
        if not several:
            faint = [(RECALLS, curve) for curve in curves]
    charts["Precision and recall, IoU 0.5"] = line_chart(
        means, x_label="recall", y_label="precision", faint=faint, y_range=(0, 1.02)
    )
    charts["Calibration of scores, IoU 0.5"] = calibration_chart(
        {name: run.errors.calibration() for name, run in runs.items()}
    )
    return charts


def _keys(metrics: Sequence[Mapping]) -> set[str]:
    return {key for line in metrics for key in line}


def _curve(metrics: Sequence[Mapping], *keys: str) -> Curve:
    points = [
        (line["iteration"], line[key])
        for line in metrics
        for key in keys
        if line.get(key) is not None
    ]
    return tuple(zip(*points, strict=True)) if points else ((), ())
