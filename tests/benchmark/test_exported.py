"""The benchmark of the exported model runs, and would see it if the file found other objects."""

import json

import pytest

from project.benchmark import exported
from project.benchmark.timing import OURS, STOCK
from scripts import benchmark
from tests.helpers import SMALL_CONFIG

SMALL = ["INPUT.MIN_SIZE_TEST", "96", "MODEL.WEIGHTS", ""]


def arguments(generated_root) -> list[str]:
    data = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG)]
    return ["export", *data, "--rounds", "1", *SMALL]


@pytest.mark.slow
def test_it_runs_and_writes_its_figures(generated_root, tmp_path, capsys):
    path = tmp_path / "figures.json"
    benchmark.main([*arguments(generated_root), "--json", str(path)])
    result = json.loads(path.read_text())["export"]
    assert {STOCK, OURS, exported.ONNX} < set(result["seconds"])
    assert STOCK not in result["ratios"] and result["load"]["median"] > 0
    assert "ONNX file" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_finds_other_objects_is_found_out(generated_root, monkeypatch, capsys):
    monkeypatch.setattr(exported, "read_image", lambda path: read_image(path)[::-1])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(arguments(generated_root))
    assert "agree" in capsys.readouterr().err


read_image = exported.read_image
