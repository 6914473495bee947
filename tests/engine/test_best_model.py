"""The best model is kept, and training stops when nothing gets better."""

import json
import logging

import pytest

from project.checkpoint.reading import read_checkpoint
from project.engine import Trainer
from project.engine.hooks import StopTraining
from project.errors import UserError
from tests.engine.helpers import ConstantEvaluator, config, train


def test_the_best_checkpoints_stay_beside_the_newest(generated_root, tmp_path, monkeypatch):
    opts = ("TEST.EVAL_PERIOD", "1", "SOLVER.CHECKPOINT_KEEP.LAST", "1", "SOLVER.MAX_ITER", "7")
    opts += ("SOLVER.CHECKPOINT_KEEP.BEST", "2", "DATASETS.TEST", "('tiny_voc_test_annotated',)")
    cfg = config(generated_root, tmp_path / "run", *opts)
    ConstantEvaluator.values = [4.0, 9.0, 1.0, 6.0, float("nan"), 2.0, 3.0]
    monkeypatch.setattr(Trainer, "test", ConstantEvaluator.test)
    with pytest.raises(StopTraining):
        train(cfg, stop_after=3)
    train(cfg, resume=True)
    kept = {path.stem for path in (tmp_path / "run").glob("model_*.pth")}
    assert kept == {"model_0000001", "model_0000003", "model_0000005", "model_final"}


def test_the_best_model_is_kept_and_training_stops_when_nothing_gets_better(
    generated_root, tmp_path, monkeypatch, caplog
):
    opts = ("TEST.EVAL_PERIOD", "1", "TEST.EARLY_STOP_PATIENCE", "2", "SOLVER.MAX_ITER", "9")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)")
    cfg = config(generated_root, tmp_path / "run", *opts)
    ConstantEvaluator.values = [1.0, 3.0, float("nan"), 2.0, 5.0]
    monkeypatch.setattr(Trainer, "test", ConstantEvaluator.test)
    with pytest.raises(StopTraining):
        train(cfg, stop_after=3)  # after one evaluation without a better value
    best = read_checkpoint(str(tmp_path / "run/best.pth"))
    assert (best["value"], best["metric"]) == (3.0, "segm/AP")
    with caplog.at_level(logging.INFO, logger="project"):
        train(cfg, resume=True)  # ends in good order
    assert ConstantEvaluator.values == [5.0]
    assert "Stopping: no better segm/AP in 2 evaluations" in caplog.text
    assert read_checkpoint(str(tmp_path / "run/latest.pth"))["iteration"] == 3
    assert read_checkpoint(str(tmp_path / "run/best.pth"))["value"] == 3.0


def test_an_evaluation_that_was_interrupted_is_made_up_for(generated_root, tmp_path, monkeypatch):
    opts = ("TEST.EVAL_PERIOD", "2", "SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_KEEP.BEST", "1")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)", "SOLVER.CHECKPOINT_KEEP.LAST", "1")
    cfg = config(generated_root, tmp_path / "run", *opts)
    monkeypatch.setattr(Trainer, "test", ConstantEvaluator.test)
    ConstantEvaluator.values = [1.0]
    with pytest.raises(IndexError):
        train(cfg)  # after the fourth iteration, when it is saved
    ConstantEvaluator.values = [9.0, 3.0]
    train(cfg, resume=True)
    assert ConstantEvaluator.values == []
    best = read_checkpoint(str(tmp_path / "run/best.pth"))
    assert (best["value"], best["iteration"]) == (9.0, 3)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.json").read_text().splitlines()]
    found = {line["iteration"]: line["segm/AP"] for line in lines if "segm/AP" in line}
    assert found[3] == 9.0 and lines[-1]["segm/AP"] == 3.0


def test_a_made_up_evaluation_can_end_the_run(generated_root, tmp_path, monkeypatch):
    """Before its first iteration."""
    opts = ("TEST.EVAL_PERIOD", "2", "SOLVER.MAX_ITER", "9", "TEST.EARLY_STOP_PATIENCE", "1")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)")
    cfg = config(generated_root, tmp_path / "run", *opts)
    monkeypatch.setattr(Trainer, "test", ConstantEvaluator.test)
    ConstantEvaluator.values = [5.0]
    with pytest.raises(IndexError):
        train(cfg)  # in the evaluation after the fourth iteration
    ConstantEvaluator.values = [4.0]
    train(cfg, resume=True)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["exit"] == "stopped by TEST.EARLY_STOP_PATIENCE"
    assert (record["start_iteration"], record["end_iteration"]) == (4, 4)


def test_patience_without_evaluations_is_refused(generated_root, tmp_path):
    opts = ("TEST.EARLY_STOP_PATIENCE", "1", "DATASETS.TEST", "('tiny_voc_test_annotated',)")
    with pytest.raises(UserError, match="there is none before the end"):
        Trainer(config(generated_root, tmp_path / "run", *opts, "TEST.EVAL_PERIOD", "0"))


def test_patience_that_ends_with_the_last_iteration_stops_nothing(
    generated_root, tmp_path, monkeypatch
):
    opts = ("TEST.EVAL_PERIOD", "1", "TEST.EARLY_STOP_PATIENCE", "1", "SOLVER.MAX_ITER", "2")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)")
    ConstantEvaluator.values = [3.0, 2.0]
    monkeypatch.setattr(Trainer, "test", ConstantEvaluator.test)
    train(config(generated_root, tmp_path / "run", *opts))
    assert json.loads((tmp_path / "run/run.json").read_text())["exit"] == "finished"
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["segm/AP"] == 2.0


def test_a_model_of_boxes_alone_is_evaluated_too(generated_root, tmp_path):
    opts = ("MODEL.MASK_ON", "False", "TEST.BEST_METRIC", "bbox/AP", "SOLVER.MAX_ITER", "1")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)")
    train(config(generated_root, tmp_path / "run", *opts))
    evaluation = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert "AP" in evaluation["bbox"] and "segm" not in evaluation
    assert read_checkpoint(str(tmp_path / "run/best.pth"))["metric"] == "bbox/AP"
