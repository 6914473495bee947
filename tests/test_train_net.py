"""The program as a user runs it: a run, its files, its evaluation, its export, its refusals."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import timm
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
from tests.helpers import FULL_CONFIG, REPOSITORY, SMALL_CONFIG


def small_pairs(root: Path, output: Path) -> list[str]:
    """KEY VALUE pairs that let the small recipe run in seconds."""
    return [
        *("MODEL.DEVICE", "cpu"),
        *("DATASETS.ROOT", str(root)),
        *("OUTPUT_DIR", str(output)),
        *("INPUT.MIN_SIZE_TRAIN", "(96,)"),
        *("INPUT.MIN_SIZE_TEST", "96"),
        *("SOLVER.IMS_PER_BATCH", "2"),
        *("SOLVER.MAX_ITER", "3"),
        *("SOLVER.CHECKPOINT_PERIOD", "2"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
        *("TEST.DETECTIONS_PER_IMAGE", "5"),
        *("SEED", "1"),
    ]


def train(root: Path, output: Path, *options: str) -> None:
    train_net.main(["--config-file", str(SMALL_CONFIG), *options, *small_pairs(root, output)])


def root_of(run: Path) -> list[str]:
    source = json.loads((run / "inference/tiny_voc_test_annotated/dataset.json").read_text())
    return ["DATASETS.ROOT", str(Path(source["json"]).parent), "MODEL.WEIGHTS", ""]


def refused(arguments: list[str], capsys) -> str:
    """The one line with which the program ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        train_net.main(arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0], lines
    return errors[0]


@pytest.fixture(scope="module")
def trained(generated_root, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    train(generated_root, output)
    return output


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
    pairs = small_pairs(generated_root, run)
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
    train(generated_root, run, "--overwrite")
    assert read_checkpoint(str(run / "latest.pth"))["iteration"] == 2
    assert kept.exists()


@pytest.mark.parametrize("test_sets", ["('tiny_voc_test',)", "()"])
def test_training_leaves_out_test_sets_without_annotations(generated_root, tmp_path, test_sets):
    pairs = small_pairs(generated_root, tmp_path / "run")
    pairs += ["DATASETS.TEST", test_sets, "SOLVER.MAX_ITER", "1"]
    train_net.main(["--config-file", str(SMALL_CONFIG), *pairs])
    assert (tmp_path / "run/latest.pth").exists()
    assert not (tmp_path / "run/evaluation.json").exists()


def test_annotations_that_come_after_training_are_evaluated_on(generated_root, tmp_path, caplog):
    root, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(generated_root, root)
    annotations = root / "test_annotations.json"
    annotations.rename(tmp_path / "later.json")
    pairs = small_pairs(root, run)
    pairs += ["DATASETS.TEST", "('tiny_voc_test_annotated',)", "SOLVER.MAX_ITER", "1"]
    train_net.main(["--config-file", str(SMALL_CONFIG), *pairs])
    assert "No evaluation on tiny_voc_test_annotated" in caplog.text
    (tmp_path / "later.json").rename(annotations)
    train_net.main(["--eval-only", "MODEL.WEIGHTS", str(run / "latest.pth")])
    assert (run / "evaluation.json").exists()
    (run / "evaluation.json").unlink()
    train_net.main(["--resume", "OUTPUT_DIR", str(run), "SOLVER.MAX_ITER", "2"])
    assert json.loads((run / "evaluation.json").read_text())["iteration"] == 2


def remove_a_picture(root: Path) -> None:
    next((root / "train_images").iterdir()).unlink()


def truncate_the_json(root: Path) -> None:
    path = root / "pascal_train.json"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "pairs", "message"),
    [
        (remove_a_picture, [], "1 x image-missing (train_000002.jpg,"),
        (truncate_the_json, [], "not valid JSON"),
        (shutil.rmtree, [], "no data at DATASETS.ROOT"),
        (None, ["MODEL.TIMM.NAMES", "x"], "did you mean MODEL.TIMM.NAME?"),
        (None, ["MODEL.TIMM.NAME", "resnet18"], "is for another model"),
        (None, ["MODEL.WEIGHTS", "nowhere.pth"], "no file 'nowhere.pth'"),
        (None, ["MODEL.WEIGHTS", "tim://resnest50d"], "or kind of address"),
        (None, ["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER 0: choose 1 or more"),
        (None, ["DATASETS.TRAIN", "('tiny_voc_test',)"], "has no annotations"),
        (None, ["DATASETS.TRAIN", "('voc',)"], "no data set 'voc'"),
        (None, ["TEST.BEST_METRIC", "segm/mAP"], "choose one of bbox/AP, bbox/AP50"),
        (None, ["MODEL.MASK_ON", "False"], "TEST.BEST_METRIC is 'segm/AP'"),
    ],
)
def test_a_mistake_is_one_line_before_training(
    generated_root, tmp_path, capsys, damage, pairs, message
):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    if damage:
        damage(root)
    arguments = ["--config-file", str(SMALL_CONFIG), *small_pairs(root, tmp_path / "run"), *pairs]
    assert message in refused(arguments, capsys)
    assert not list(tmp_path.glob("run/*.pth"))


@pytest.mark.parametrize(
    ("options", "pairs", "message"),
    [
        (["--num-gpus", "99"], [], "99 GPU(s) asked for"),
        (["--num-gpus", "-1"], [], "--num-gpus -1"),
        (["--resume"], [], "--resume: there is no checkpoint"),
        (["--resume", "--overwrite"], [], "--resume goes with neither"),
        (["--format-only", "a.json"], [], "--format-only needs --eval-only"),
        (["--eval-only"], ["MODEL.WEIGHTS", ""], "--eval-only needs MODEL.WEIGHTS"),
        ([], ["SOLVER.MAX_ITER", "5", "--overwrite"], "must stand before"),
        (["--num-gpus", "3"], ["MODEL.DEVICE", "cpu"], "choose a multiple of 3"),
        (["--num-gpus", "0"], ["MODEL.DEVICE", "cuda"], "--num-gpus 0"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, capsys, options, pairs, message):
    arguments = ["--config-file", str(SMALL_CONFIG), *options]
    arguments += ["OUTPUT_DIR", str(tmp_path / "run"), *pairs]
    assert message in refused(arguments, capsys)


@pytest.mark.parametrize(
    "option",
    [
        ["--num-machines", "2"],
        ["--dist-url", "tcp://a:1"],
        ["--num-gpus", "2", "MODEL.DEVICE", "cpu"],
    ],
)
def test_options_that_torchrun_overrules_are_one_line(monkeypatch, capsys, option):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    message = refused(["--config-file", str(SMALL_CONFIG), *option], capsys)
    assert "torchrun has started the processes" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_asking_for_one_is_an_error_and_asking_for_nothing_is_not(capsys):
    message = refused(["--config-file", str(SMALL_CONFIG), "MODEL.DEVICE", "cuda"], capsys)
    assert "sees 0" in message and "MODEL.DEVICE cpu" in message


def test_the_weights_that_training_starts_from_are_not_replaced(trained, tmp_path, capsys):
    weights = tmp_path / "latest.pth"  # the original's name
    weights.write_bytes((trained / "latest.pth").read_bytes())
    before = weights.read_bytes()
    pairs = ["OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "latest.pth"]
    assert "move it away" in refused(pairs, capsys)
    assert "would delete MODEL.WEIGHTS" in refused(["--overwrite", *pairs], capsys)
    assert weights.read_bytes() == before


def test_exports_are_not_overwritten_and_need_a_set(trained, tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text("mine")
    weights = ["MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    message = refused(["--eval-only", "--format-only", str(path), *weights], capsys)
    assert "there already" in message and path.read_text() == "mine"
    train_net.main(["--eval-only", "--overwrite", "--format-only", str(path), *weights])
    assert len(json.loads(path.read_text())) == 30


def test_evaluating_without_annotations_names_the_sets_that_have_some(trained, capsys):
    arguments = ["--eval-only", "MODEL.WEIGHTS", str(trained / "latest.pth"), "MODEL.DEVICE", "cpu"]
    message = refused([*arguments, "DATASETS.TEST", "('tiny_voc_test',)"], capsys)
    assert "tiny_voc_test_annotated" in message


def test_weights_of_another_architecture_at_evaluation(generated_root, tmp_path, capsys):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "foreign.pth")
    arguments = ["--eval-only", "--config-file", str(SMALL_CONFIG)]
    arguments += small_pairs(generated_root, tmp_path / "run")
    message = refused([*arguments, "MODEL.WEIGHTS", str(tmp_path / "foreign.pth")], capsys)
    assert "is for another model" in message


def test_categories_that_disagree_with_the_checkpoint(trained, generated_root, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(generated_root, root)
    content = json.loads((root / "pascal_train.json").read_text())
    content["categories"][0]["name"] = "aeroplane"
    (root / "pascal_train.json").write_text(json.dumps(content))
    arguments = ["--eval-only", "MODEL.WEIGHTS", str(trained / "latest.pth")]
    message = refused([*arguments, "MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(root)], capsys)
    assert "disagree" in message and "aeroplane" in message


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


def test_polygon_targets_need_polygons(generated_root, tmp_path, capsys):
    arguments = ["--config-file", str(SMALL_CONFIG), *small_pairs(generated_root, tmp_path / "run")]
    message = refused([*arguments, "INPUT.MASK_FORMAT", "polygon"], capsys)
    assert "is an RLE; set INPUT.MASK_FORMAT bitmask" in message


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
