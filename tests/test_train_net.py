"""The program as a user runs it: a run, its files, its evaluation and its export."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from pycocotools.coco import COCO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_net
from project.checkpoint.mmdetection import MMDETECTION_NAMES
from project.checkpoint.reading import read_checkpoint
from project.config import load_config
from project.evaluation.coco_metrics import evaluate_detections
from scripts import split_dataset
from tests.evaluation.test_metrics import CATEGORIES, pycocotools_stats
from tests.helpers import FULL_CONFIG, REPOSITORY, SMALL_CONFIG, refused, run_pairs, train_small


def root_of(run: Path) -> list[str]:
    source = json.loads((run / "inference/tiny_voc_test_annotated/dataset.json").read_text())
    return ["DATASETS.ROOT", str(Path(source["json"]).parent), "MODEL.WEIGHTS", ""]


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the trained run that a test may change."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_a_run_leaves_the_files_that_others_rely_on(trained):
    assert os.readlink(trained / "latest.pth") == "model_final.pth"
    content = read_checkpoint(str(trained / "latest.pth"))
    assert content["categories"] == CATEGORIES.to_mapping() and content["iteration"] == 2
    assert "tf_efficientnet_lite0" in content["config"]
    metrics = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    scalars = {"total_loss", "loss_mask", "lr", "segm/AP", "images_per_second", "memory_mib"}
    assert scalars <= set().union(*metrics)
    log = (trained / "log.txt").read_text()
    assert len(re.findall(r"iter 3/3 100%  loss \d", log)) == 1 and "loss_mask" not in log
    assert "MAX_ITER: 3" in (trained / "config.yaml").read_text()


def test_tensorboard_has_the_scalars_and_predictions_beside_ground_truth(trained):
    assert len(list(trained.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(trained))
    events.Reload()
    scalars = {"total_loss", "loss_mask", "lr", "segm/AP", "images_per_second", "memory_mib"}
    assert scalars <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["predictions/tiny_voc_test_annotated"]
    (panel,) = events.Images("predictions/tiny_voc_test_annotated")
    assert panel.step == 3 and panel.width > panel.height > 500  # two columns, two rows


def test_evaluation_json_has_the_documented_layout(trained, generated_root):
    results = json.loads((trained / "evaluation.json").read_text())
    assert list(results) == ["dataset", "iteration", "detections_sha256", "bbox", "segm"]
    assert (results["dataset"], results["iteration"]) == ("tiny_voc_test_annotated", 3)
    for key in ("bbox", "segm"):
        assert list(results[key]) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"]
        assert set(results[key]["per_class"]) == set(CATEGORIES.names)
        assert set(results[key]["per_class"]["star"]) == {"AP", "AP50", "instances"}
    source = json.loads((trained / "inference/tiny_voc_test_annotated/dataset.json").read_text())
    assert Path(source["json"]) == (generated_root / "test_annotations.json").resolve()


def test_the_export_reloads_to_what_the_evaluator_saw(trained, generated_root, tmp_path):
    path = tmp_path / "submission.json"
    weights = ["MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    before = (trained / "config.yaml").read_bytes()
    train_net.main(["--eval-only", "--format-only", str(path), *weights])
    assert (trained / "config.yaml").read_bytes() == before
    exported = json.loads(path.read_text())
    seen = json.loads((trained / "inference/tiny_voc_test_annotated/detections.json").read_text())
    assert exported == seen and len(exported) == 30
    test = json.loads((generated_root / "test.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in test["images"]}
    for detection in exported:
        assert detection["segmentation"]["size"] == sizes[detection["image_id"]]
        assert detection["category_id"] in CATEGORIES.ids
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(generated_root / "test_annotations.json")).loadRes(str(path))
    assert len(loaded.anns) == len(exported)
    for iou_type in ("bbox", "segm"):
        ours = evaluate_detections(truth, exported, iou_type, CATEGORIES).summary["AP"]
        assert ours == pytest.approx(100 * pycocotools_stats(truth, exported, iou_type)[0])


def test_evaluating_a_checkpoint_gives_what_training_saw(run):
    first = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").unlink()
    # The config is the one stored in the checkpoint.
    train_net.main(
        [
            "--eval-only",
            "MODEL.WEIGHTS",
            "latest.pth",
            "OUTPUT_DIR",
            str(run),
            "MODEL.DEVICE",
            "cpu",
        ]
    )
    assert json.loads((run / "evaluation.json").read_text()) == first


def test_a_run_that_was_moved_is_evaluated_where_it_is(trained, run):
    before = (trained / "evaluation.json").read_bytes()
    (trained / "evaluation.json").write_text("of the run that was there before")
    (run / "evaluation.json").unlink()
    train_net.main(["--eval-only", "MODEL.WEIGHTS", str(run / "latest.pth"), "MODEL.DEVICE", "cpu"])
    assert (run / "evaluation.json").read_bytes() == before
    assert (trained / "evaluation.json").read_text() == "of the run that was there before"
    (trained / "evaluation.json").write_bytes(before)


def test_the_best_model_knows_its_iteration(run):
    arguments = ["--eval-only", "MODEL.WEIGHTS", "best.pth", "OUTPUT_DIR", str(run)]
    train_net.main([*arguments, "MODEL.DEVICE", "cpu"])
    assert json.loads((run / "evaluation.json").read_text())["iteration"] == 3
    # A file of weights alone has none.
    weights = run / "weights.pth"
    torch.save({"model": read_checkpoint(str(run / "best.pth"))["model"]}, weights)
    arguments = ["--eval-only", "--config-file", str(run / "config.yaml"), "OUTPUT_DIR", str(run)]
    train_net.main([*arguments, "MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu"])
    assert json.loads((run / "evaluation.json").read_text())["iteration"] is None


def test_further_test_sets_have_files_of_their_own(run):
    arguments = ["--eval-only", "MODEL.WEIGHTS", "latest.pth", "OUTPUT_DIR", str(run)]
    arguments += ["DATASETS.TEST", "('tiny_voc_test_annotated', 'tiny_voc_train')"]
    train_net.main([*arguments, "MODEL.DEVICE", "cpu"])
    results = json.loads((run / "evaluation_tiny_voc_train.json").read_text())
    assert results["dataset"] == "tiny_voc_train"
    assert json.loads((run / "evaluation.json").read_text())["dataset"] != "tiny_voc_train"
    assert (run / "inference/tiny_voc_train/detections.json").exists()


@pytest.mark.slow
def test_the_shell_scripts_do_their_job(run):
    if not (REPOSITORY / ".venv/setup.stamp").is_file():
        pytest.skip("this checkout was not set up with scripts/setup.sh")

    def bash(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", *words], cwd=run, capture_output=True, text=True)

    scripts = str(REPOSITORY / "scripts")
    pairs = ("OUTPUT_DIR", str(run), "MODEL.DEVICE", "cpu")
    (run / "evaluation.json").unlink()
    assert bash(f"{scripts}/eval.sh", "latest.pth", *pairs).returncode == 0
    assert (run / "evaluation.json").exists()
    assert bash(f"{scripts}/submit.sh", "latest.pth", "a.json", *pairs).returncode == 0
    assert len(json.loads((run / "a.json").read_text())) == 30
    assert "already holds a run" in bash(f"{scripts}/train.sh", *pairs, *root_of(run)).stderr
    for script in ("eval", "submit"):
        assert bash(f"{scripts}/{script}.sh").returncode == 2


def test_a_second_run_needs_overwrite_or_resume(run, generated_root, capsys):
    pairs = run_pairs(generated_root, run)
    message = refused(["--config-file", str(SMALL_CONFIG), *pairs], capsys)
    assert "already holds a run" in message
    assert (run / "model_final.pth").exists()
    train_net.main(["--resume", *pairs, "SOLVER.MAX_ITER", "5"])
    assert read_checkpoint(str(run / "latest.pth"))["iteration"] == 4
    assert json.loads((run / "evaluation.json").read_text())["iteration"] == 5
    message = refused(["--resume", *pairs, "SOLVER.MAX_ITER", "4"], capsys)
    assert "5 iterations are done" in message
    assert "MAX_ITER: 5" in (run / "config.yaml").read_text()
    # Starting from the very run that would be replaced is refused, and it stays.
    weights = str(run / "latest.pth")
    message = refused(["--overwrite", *pairs, "MODEL.WEIGHTS", weights], capsys)
    assert "would delete" in message
    # So is what could not start.
    for key, value, expected in (
        ("MODEL.TIMM.NAME", "resnet18", "is for another model"),
        ("SOLVER.AMP.DTYPE", "bf16", "SOLVER.AMP.DTYPE"),
        ("SOLVER.MAX_ITER", "0", "SOLVER.MAX_ITER"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactor", "DATALOADER.SAMPLER_TRAIN"),
        ("TEST.EARLY_STOP_PATIENCE", "1", "there is none before the end"),
    ):
        mistake = [*pairs, "SOLVER.AMP.ENABLED", "True", key, value]
        message = refused(["--overwrite", "--config-file", str(SMALL_CONFIG), *mistake], capsys)
        assert expected in message
        assert read_checkpoint(weights)["iteration"] == 4
    # A folder with nothing but checkpoints holds a run too.
    for path in run.iterdir():
        if path.suffix != ".pth" and path.is_file():
            path.unlink()
    kept = run / "model_of_another.pth"
    kept.write_bytes(b"")
    message = refused(["--config-file", str(SMALL_CONFIG), *pairs], capsys)
    assert "already holds a run" in message
    train_small(generated_root, run, "--overwrite")
    assert read_checkpoint(str(run / "latest.pth"))["iteration"] == 2
    assert kept.exists()


@pytest.mark.parametrize("test_sets", ["('tiny_voc_test',)", "()"])
def test_training_leaves_out_test_sets_without_annotations(generated_root, tmp_path, test_sets):
    pairs = run_pairs(generated_root, tmp_path / "run")
    pairs += ["DATASETS.TEST", test_sets, "SOLVER.MAX_ITER", "1"]
    train_net.main(["--config-file", str(SMALL_CONFIG), *pairs])
    assert (tmp_path / "run/latest.pth").exists()
    assert not (tmp_path / "run/evaluation.json").exists()


def test_annotations_that_come_after_training_are_evaluated_on(generated_root, tmp_path, caplog):
    root, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(generated_root, root)
    annotations = root / "test_annotations.json"
    annotations.rename(tmp_path / "later.json")
    pairs = run_pairs(root, run)
    pairs += ["DATASETS.TEST", "('tiny_voc_test_annotated',)", "SOLVER.MAX_ITER", "1"]
    train_net.main(["--config-file", str(SMALL_CONFIG), *pairs])
    assert "No evaluation on tiny_voc_test_annotated" in caplog.text
    (tmp_path / "later.json").rename(annotations)
    train_net.main(["--eval-only", "MODEL.WEIGHTS", str(run / "latest.pth")])
    assert (run / "evaluation.json").exists()
    (run / "evaluation.json").unlink()
    # What has none is left out here, too.
    sets = ["DATASETS.TEST", "('tiny_voc_test', 'tiny_voc_test_annotated')"]
    train_net.main(["--eval-only", "MODEL.WEIGHTS", str(run / "latest.pth"), *sets])
    assert "No evaluation on tiny_voc_test:" in caplog.text
    assert json.loads((run / "evaluation.json").read_text())["dataset"] == sets[1][19:-2]
    train_net.main(["--resume", "OUTPUT_DIR", str(run), "SOLVER.MAX_ITER", "2"])
    assert json.loads((run / "evaluation.json").read_text())["iteration"] == 2


def test_a_checkpoint_brings_its_categories_where_there_is_no_training_set(
    trained, generated_root, tmp_path
):
    shutil.copytree(generated_root / "test_images", tmp_path / "data/test_images")
    shutil.copy(generated_root / "test.json", tmp_path / "data")
    arguments = ["--eval-only", "--format-only", str(tmp_path / "a.json")]
    arguments += ["MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    train_net.main([*arguments, "DATASETS.ROOT", str(tmp_path / "data")])
    assert len(json.loads((tmp_path / "a.json").read_text())) == 30


SMALL_ORIGINAL = [
    *("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnest14d"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.CONV_DIM", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "96", "TEST.DETECTIONS_PER_IMAGE", "5"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
]


def mmdetection_checkpoint(path: Path, class_names: tuple[str, ...]) -> None:
    """A latest.pth of mmdetection for the default recipe in small."""
    cfg = load_config("", SMALL_ORIGINAL, default_config=str(FULL_CONFIG))
    state = build_model(cfg).state_dict()
    renamed = {MMDETECTION_NAMES.to_theirs(name): tensor for name, tensor in state.items()}
    torch.save({"meta": {"CLASSES": class_names}, "state_dict": renamed}, path)


def test_the_originals_latest_pth_is_evaluated_and_exported_as_it_is(generated_root, tmp_path):
    weights = tmp_path / "latest.pth"
    mmdetection_checkpoint(weights, CATEGORIES.names)
    # No config file: the tiny-VOC recipe is the default for a foreign checkpoint.
    pairs = ["MODEL.WEIGHTS", str(weights), "DATASETS.ROOT", str(generated_root), *SMALL_ORIGINAL]
    pairs += ["OUTPUT_DIR", str(tmp_path / "run")]
    train_net.main(["--eval-only", *pairs])
    seen = tmp_path / "run/inference/tiny_voc_test_annotated/detections.json"
    train_net.main(["--eval-only", "--format-only", str(tmp_path / "a.json"), *pairs])
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(seen.read_text())
    assert len(json.loads(seen.read_text())) == 30


def test_classes_of_a_foreign_checkpoint_must_be_those_of_the_data(
    generated_root, tmp_path, capsys
):
    weights = tmp_path / "latest.pth"
    mmdetection_checkpoint(weights, ("aeroplane", *CATEGORIES.names[1:]))
    pairs = ["MODEL.WEIGHTS", str(weights), "DATASETS.ROOT", str(generated_root), *SMALL_ORIGINAL]
    message = refused(["--eval-only", *pairs, "OUTPUT_DIR", str(tmp_path / "run")], capsys)
    assert "was trained on 20 classes (aeroplane" in message and "arrow" in message


def test_the_originals_choices_train_on_polygons(generated_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    path = root / "pascal_train.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        a for a in content["annotations"] if isinstance(a["segmentation"], list)
    ]
    path.write_text(json.dumps(content))
    pairs = ["MODEL.WEIGHTS", "", "DATASETS.ROOT", str(root), *SMALL_ORIGINAL]
    pairs += ["INPUT.MASK_FORMAT", "polygon", "INPUT.MIN_SIZE_TRAIN", "(96,)"]
    pairs += ["SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    train_net.main(["--config-file", str(FULL_CONFIG), *pairs])
    metrics = [json.loads(x) for x in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert {"loss_mask_stage0", "loss_mask_stage2"} <= set().union(*metrics)


def test_the_validation_recipe_reports_on_pictures_that_it_does_not_train_on(
    generated_root, tmp_path, capsys
):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    config_file = FULL_CONFIG.with_name("cascade_mask_rcnn_resnest50_fpn_val.yaml")
    pairs = ["MODEL.WEIGHTS", "", "DATASETS.ROOT", str(root), *SMALL_ORIGINAL]
    pairs += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"]
    pairs += ["SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path / "run")]
    arguments = ["--config-file", str(config_file), *pairs]
    assert f"scripts/split_dataset.py {root} writes it" in refused(arguments, capsys)
    split_dataset.main([str(root)])
    train_net.main(arguments)
    results = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert results["dataset"] == "tiny_voc_val"
    parts = [
        json.loads((root / name).read_text())["images"]
        for name in ("pascal_train_split.json", "pascal_val.json")
    ]
    names = [{image["file_name"] for image in part} for part in parts]
    assert names[0] and names[1] and not names[0] & names[1]
