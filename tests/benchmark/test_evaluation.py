"""The benchmark of evaluation runs, and would see other metrics."""

import dataclasses
import json

import pytest

from project.benchmark import evaluation
from project.errors import UserError
from scripts import benchmark


def test_it_runs_and_writes_its_figures(tmp_path):
    path = tmp_path / "figures.json"
    benchmark.main(["eval", "--rounds", "1", "--images", "20", "--json", str(path)])
    results = json.loads(path.read_text())["eval"]
    for iou_type in ("bbox", "segm"):
        assert results[iou_type]["difference"] <= 1e-6
        assert 5 < results[iou_type]["ap"] < 95
        assert 0 <= results[iou_type]["added_memory"] < 1


def test_metrics_that_differ_are_found_out(monkeypatch):
    evaluate = evaluation.evaluate

    def wrong(*arguments):
        result = evaluate(*arguments)
        return dataclasses.replace(result, summary={**result.summary, "AP75": 50.0})

    monkeypatch.setattr(evaluation, "evaluate", wrong)
    with pytest.raises(UserError, match="the metrics differ"):
        evaluation.benchmark_evaluation(1, num_images=10)
