"""A dry run meets what training would, says what it would take, and leaves nothing behind."""

import json

import pytest

import train_net
from project.engine.dry_run import Forecast, dry_run, logger, number_of_checkpoints
from tests.helpers import SMALL_CONFIG, load_small_config


def files_of(folder) -> dict[str, bytes]:
    """But for the log, which this process goes on with."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def run(small_opts, *options: str, opts=()) -> None:
    train_net.main([*options, "--config-file", str(SMALL_CONFIG), *small_opts, *opts])


def test_it_says_what_training_would_take_and_leaves_nothing(small_opts, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(logger, "info", said.append)
    run(small_opts, "--dry-run", opts=["SOLVER.MAX_ITER", "60", "TEST.EVAL_PERIOD", "20"])
    output = "\n".join(said)
    assert "60 iterations (10.0 epochs)" in output
    assert "GiB" in output and "iteration 5:" in output and "iteration 6:" not in output
    assert files_of(tmp_path) == {}


def test_the_numbers_follow_from_the_recipe(small_opts):
    opts = ["SOLVER.MAX_ITER", "60", "SOLVER.CHECKPOINT_PERIOD", "10", "TEST.EVAL_PERIOD", "25"]
    cfg = load_small_config([*small_opts, *opts])
    forecast = dry_run(cfg)
    assert forecast.iterations == 60 and forecast.tests == 3 * 6
    assert forecast.checkpoints == 3 + 2  # and model_final.pth, best.pth
    assert 0 < forecast.seconds < 60 and 0 <= forecast.data_share < 1
    assert 2**20 < forecast.checkpoint < 2**29
    assert forecast.checkpoint < forecast.memory < forecast.memory_of_device
    cfg.SOLVER.CHECKPOINT_KEEP.LAST = 0
    cfg.DATASETS.TEST = ()
    untested = dry_run(cfg)
    assert (untested.checkpoints, untested.tests, untested.seconds_of_a_test) == (6, 0, None)


@pytest.mark.parametrize(
    ("iterations", "checkpoint_period", "eval_period", "last", "number"),
    [(1500, 5000, 100, 3, 5), (1500, 500, 100, 0, 16), (600, 5000, 25, 0, 25), (9, 5000, 0, 3, 2)],
)
def test_evaluations_leave_checkpoints_too(
    small_opts, iterations, checkpoint_period, eval_period, last, number
):
    cfg = load_small_config(small_opts)
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = iterations, checkpoint_period
    cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_KEEP.LAST = eval_period, last
    assert cfg.DATASETS.TEST and number_of_checkpoints(cfg) == number


def test_time_and_disk_are_added_up():
    numbers = {"data_share": 0.25, "memory": 2**30, "memory_of_device": 2**33}
    numbers |= {"checkpoint": 2**29, "checkpoints": 4, "iterations": 3600, "epochs": 24.0}
    forecast = Forecast(
        seconds=0.5, seconds_of_a_test=0.1, tests=600, disk_free=2**31 - 1, **numbers
    )
    text = forecast.summary()
    assert "time    0:31:00" in text and "0:30:00" in text and "0:01:00" in text
    assert "25%" in text and "1.0 of 8.0 GiB" in text and "2.0 GiB for 4" in text
    assert "too little" in text


def test_a_run_that_is_there_stays(small_opts, tmp_path, capsys):
    run(small_opts, opts=["SOLVER.MAX_ITER", "1"])
    before = files_of(tmp_path)
    assert json.loads(before["run/run.json"])["exit"] == "finished"
    with pytest.raises(SystemExit, match="2"):
        run(small_opts, "--dry-run")
    assert "already holds a run" in capsys.readouterr().err
    weights = ["MODEL.WEIGHTS", "model_final.pth"]  # in OUTPUT_DIR
    run(small_opts, "--dry-run", "--overwrite", opts=["SOLVER.MAX_ITER", "7"])
    with pytest.raises(SystemExit, match="2"):
        run(small_opts, "--dry-run", "--overwrite", opts=weights)
    assert "would delete MODEL.WEIGHTS" in capsys.readouterr().err
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "opts", "message"),
    [
        (["--eval-only"], [], "neither --eval-only"),
        (["--resume"], [], "nor --resume"),
        ([], ["DATASETS.ROOT", "nowhere"], "no data at DATASETS.ROOT"),
        ([], ["SOLVER.IMS_PER_BATCH", "0"], "IMS_PER_BATCH"),
        ([], ["MODEL.WEIGHTS", "nowhere.pth"], "no file"),
    ],
)
def test_it_finds_the_mistakes_that_training_would(small_opts, capsys, options, opts, message):
    with pytest.raises(SystemExit, match="2"):
        run(small_opts, "--dry-run", *options, opts=opts)
    assert message in capsys.readouterr().err
