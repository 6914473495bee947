"""The benchmark of loading runs, and would see it if the mappers disagreed."""

import json

import numpy as np
import pytest

from project.benchmark import data
from project.data.loading import training_records
from project.data.reading import read_image
from project.data.segmentation import decode_segmentation
from project.errors import UserError
from scripts import benchmark
from tests.helpers import SMALL_CONFIG, load_small_config


def test_it_runs_and_writes_its_figures(generated_root, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG), "--rounds", "2"]
    benchmark.main(["data", *arguments, "--json", str(figures), "INPUT.MIN_SIZE_TRAIN", "(96,)"])
    printed = capsys.readouterr().out
    assert "pixels, boxes, classes and RLE masks are equal" in printed
    assert "times as fast as Detectron2" in printed
    figures = json.loads(figures.read_text())
    content = figures["data"]
    assert figures["rounds"] == 2 and content["agreement"]["pictures"] == 12
    for name, spread in content["seconds"].items():
        assert 0 < spread["minimum"] <= spread["median"] <= spread["maximum"]
        steps = content["steps"][name]
        assert set(steps) >= {"decode", "resize and flip", "boxes and masks"}
        assert min(steps.values()) > 0
        assert sum(steps.values()) == pytest.approx(spread["median"])
    assert set(content["switches"]) == set(data.SWITCHES)


def test_enlarged_pictures_show_the_same(generated_root, small_opts, tmp_path, capsys):
    records = training_records(load_small_config(small_opts))
    record = next(
        x for x in records if any(isinstance(a["segmentation"], dict) for a in x["annotations"])
    )
    large = data.enlarged(record, 3, tmp_path)
    assert read_image(large["file_name"]).shape == (large["height"], large["width"], 3)
    for small, big in zip(record["annotations"], large["annotations"], strict=True):
        mask = decode_segmentation(small["segmentation"], record["height"], record["width"])
        mask_3 = decode_segmentation(big["segmentation"], large["height"], large["width"])
        assert (mask_3[1::3, 1::3] != mask).sum() <= 0.05 * mask.sum()
        assert big["bbox"] == [3 * x for x in small["bbox"]]
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG), "--rounds", "1"]
    benchmark.main(["data", *arguments, "--enlarge", "3", "INPUT.MIN_SIZE_TRAIN", "(96,)"])
    assert "6 pictures; resized alike" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["data", "growth"])
@pytest.mark.parametrize(
    ("opts", "missing"),
    [
        (["INPUT.LSJ.ENABLED", "True"], "add INPUT.LSJ.ENABLED False and"),
        (["INPUT.COPY_PASTE.PROBABILITY", "0.5"], "add INPUT.COPY_PASTE.PROBABILITY 0.0 and"),
        (["INPUT.COLOR_JITTER.ENABLED", "True"], "add INPUT.COLOR_JITTER.ENABLED False and"),
    ],
)
def test_augmentations_that_detectron2_has_not_are_refused(
    generated_root, capsys, name, opts, missing
):
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG), *opts]
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([name, *arguments])
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["image", "gt_boxes", "gt_classes", "gt_masks", "number"])
def test_mappers_that_disagree_are_found_out(small_opts, monkeypatch, changed):
    cfg = load_small_config(small_opts)
    build = data.build_mapper

    def build_wrong(*arguments, **options):
        def wrong(record):
            result = build(*arguments, **options)(record)
            instances = result["instances"]
            if changed == "image":
                result["image"][0, 0, 0] ^= 1
            elif changed == "number":
                result["instances"] = instances[:-1]
            elif changed == "gt_boxes":
                instances.gt_boxes.tensor[0, 0] += 0.01
            elif changed == "gt_classes":
                instances.gt_classes[0] += 1
            else:  # far from any boundary
                instances.gt_masks.tensor[0] = ~instances.gt_masks.tensor[0]
            return result

        return wrong

    monkeypatch.setattr(data, "build_mapper", build_wrong)
    with pytest.raises(UserError, match="the mappers disagree on"):
        data.compare_mappers(cfg, training_records(cfg))


def test_near_boundary():
    mask = np.zeros((9, 9), dtype=bool)
    mask[:, 5:] = True
    expected = np.zeros((9, 9), dtype=bool)
    expected[:, 3:7] = True
    assert np.array_equal(data.near_boundary(mask, 2), expected)
