"""How cost grows is measured on both sides, and drawn."""

import json

import pytest

from project.benchmark import growth
from project.benchmark.growth import Growth, draw_growth, report_growth
from project.benchmark.model import OURS_BF16
from project.benchmark.timing import OURS, STOCK
from scripts import benchmark
from tests.helpers import SMALL_CONFIG


@pytest.mark.slow
def test_it_runs_and_writes_its_figures(generated_root, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "BATCHES", (1, 2))
    monkeypatch.setattr(growth, "IMAGES", (10, 20))
    monkeypatch.setattr(growth, "WORKERS", (0, 1))
    monkeypatch.setattr(growth, "SCALES", (1.0, 4.0))
    monkeypatch.setattr(growth, "LOADED", 2)
    monkeypatch.setattr(growth, "TRAINED", 4)
    figures, plot = tmp_path / "figures.json", tmp_path / "growth.svg"
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG)]
    arguments += ["--rounds", "1", "--json", str(figures), "--plot", str(plot)]
    small = ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "MODEL.WEIGHTS", ""]
    benchmark.main(["growth", *arguments, *small])
    batch, size, images, workers, processes = json.loads(figures.read_text())["growth"]
    assert set(batch["values"]) == set(size["values"]) == {STOCK, OURS, OURS_BF16}
    assert set(images["values"]) == {"pycocotools", OURS}
    assert set(workers["values"]) == {STOCK, OURS}
    assert set(processes["values"]) == {OURS, OURS_BF16}
    for result in (batch, size, images, workers, processes):
        for values in result["values"].values():
            assert len(values) == 2 and min(values.values()) > 0
    for memory in size["values"].values():
        assert list(memory) == ["96", "384"] and memory["384"] > memory["96"] > 0.2
    assert "pictures in a batch" in plot.read_text()


def test_each_program_is_a_line_and_a_column(tmp_path):
    results = [Growth("pictures", "seconds", {"one": {1: 0.5, 2: 1.25}, "other": {1: 3.0, 2: 4.0}})]
    assert [line.split() for line in report_growth(results).splitlines()[3:]] == [
        ["1", "0.50", "3.00"],
        ["2", "1.25", "4.00"],
    ]
    draw_growth(results * 4, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<!-- other -->") == 4


@pytest.mark.parametrize("arguments", [["eval", "--plot", "a.svg"], ["growth", "--plot", "a.gif"]])
def test_a_plot_that_cannot_be_drawn_is_refused_first(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(arguments)
    assert "--plot goes with growth" in capsys.readouterr().err
