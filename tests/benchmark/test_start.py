"""Both sides come to their first iteration, or say why not."""

import json

import pytest

from project.benchmark.timing import OURS, STOCK
from scripts import benchmark
from tests.helpers import SMALL_CONFIG

pytestmark = pytest.mark.slow  # four processes


def test_both_sides_start(generated_root, tmp_path):
    path = tmp_path / "figures.json"
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG)]
    benchmark.main(["start", *arguments, "--rounds", "1", "--json", str(path)])
    result = json.loads(path.read_text())["start"]
    assert result["pictures"] == 4  # the recipe's batch
    assert set(result["seconds"]) == {STOCK, OURS}
    assert all(1 < spread["median"] < 120 for spread in result["seconds"].values())


def test_a_side_that_fails_is_named(tmp_path, capsys):
    arguments = ["--data", str(tmp_path), "--config-file", str(SMALL_CONFIG), "--rounds", "1"]
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["start", *arguments])
    error = capsys.readouterr().err
    assert f"{STOCK} failed" in error and "pascal_train.json" in error
