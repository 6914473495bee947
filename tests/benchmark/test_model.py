"""The benchmarks of the model run, and would see it if the two sides differed."""

import json

import pytest
from detectron2.data import DatasetCatalog

from project.benchmark import detection, model, training
from project.benchmark.timing import OURS, STOCK
from project.config import load_config
from project.errors import UserError
from project.meta_arch.rcnn import ExtendedRCNN
from project.recipes import RECIPES
from scripts import benchmark
from tests.helpers import SMALL_CONFIG, load_small_config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["infer", "train"])
def test_it_runs_and_writes_its_figures(generated_root, tmp_path, name):
    path = tmp_path / "figures.json"
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG)]
    small = ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "MODEL.WEIGHTS", ""]
    trace = tmp_path / "trace.json"
    written = ["--json", str(path), "--profile", str(trace)]
    benchmark.main([name, *arguments, "--rounds", "1", *written, *small])
    events = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "aten::convolution" in events and len(events) > 50
    result = json.loads(path.read_text())[name]
    assert list(result["seconds"]) == [model.STOCK, model.OURS, model.OURS_BF16]
    assert set(result["ratios"]) == {model.OURS, model.OURS_BF16}
    assert result["flop"] > 1e8
    assert set(result["shares"]) == set(result["seconds"]) and min(result["shares"].values()) > 0
    for parts in result["parts"].values():
        assert min(parts.values()) > 0 and "RoIAlign" in parts


def test_a_profile_is_of_the_model(tmp_path, capsys):
    for name in ("masks", "all"):
        with pytest.raises(SystemExit, match="2"):
            benchmark.main([name, "--profile", str(tmp_path / "trace.json")])
        assert "infer or train" in capsys.readouterr().err


def test_detections_that_differ_are_found_out(small_opts, monkeypatch):
    cfg = load_small_config(small_opts)
    record = DatasetCatalog.get("tiny_voc_train")[0]
    inference = ExtendedRCNN.inference

    def wrong(self, *arguments, **options):
        results = inference(self, *arguments, **options)
        results[0]["instances"].scores += 0.01
        return results

    monkeypatch.setattr(ExtendedRCNN, "inference", wrong)
    with pytest.raises(UserError, match="infer: proposals"):
        detection.benchmark_inference(cfg, [record], 1)


@pytest.mark.parametrize("recipe", ["stock_effnet_lite0", "cascade_mask_rcnn_effnet_lite0_fpn_cpu"])
def test_any_recipe_is_compared_with_detectron2(recipe):
    cfg = load_config(str(RECIPES / f"small_data/{recipe}.yaml"))
    stock, ours = (model.config_of(cfg, side).MODEL for side in (STOCK, OURS))
    assert (stock.META_ARCHITECTURE, ours.META_ARCHITECTURE) == ("GeneralizedRCNN", "ExtendedRCNN")
    assert stock.ROI_HEADS.NAME == "CascadeROIHeads"
    assert ours.ROI_HEADS.NAME == "ExtendedCascadeROIHeads"
    # What Detectron2 has no key for.
    assert ours.ROI_MASK_HEAD.THRESH_TEST == 0.5


def test_losses_that_differ_are_found_out(small_opts, monkeypatch):
    cfg = load_small_config(small_opts)
    monkeypatch.setattr(model, "STOCK_COMPUTATION", ("MODEL.DELTA_CLAMP", "upper"))
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS = [1.0, 0.5, 0.25]
    with pytest.raises(UserError, match="train: loss"):
        training.benchmark_training(cfg, DatasetCatalog.get("tiny_voc_train")[:2], 1)
