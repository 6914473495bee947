"""Every command of README and docs is run here or, with a reason, only parsed."""

import importlib
import json
import os
import re
import shutil

import cv2
import pytest
from PIL import Image

from project.config import get_project_cfg, parse_opts
from project.data.segmentation import compressed_rle, decode_segmentation
from tests.data.test_voc_devkit import write_kit
from tests.documented_commands import Command, documented_commands, documented_python
from tests.helpers import REPOSITORY

COMMANDS = documented_commands()
SMALL = "configs/tiny_voc/cascade_mask_rcnn_effnet_lite0_fpn_cpu.yaml"

# What is not run here, and why.
NOT_RUN = {
    r"^(source|pip|tensorboard) ": "not a program of this project",
    r"^bash scripts/(demo|test|setup)\.sh": "needs the network; test_demo and test_setup run them",
    r"^bash scripts/(train|eval|submit)\.sh": "test_train_net runs them",
    r"^bash scripts/experiments\.sh": "test_experiments runs it",
    r"^(torchrun|sbatch) |--num-machines": "a cluster; test_processes runs what it can of it",
    r"--num-gpus 2": "needs GPUs; test_processes runs it on the CPU",
    r"^python train_net\.py --config-file \S+resnest50": "needs a GPU; test_demo runs the recipe",
    r"^python train_net\.py .*voc_real": "needs photographs that are not part of the repository",
    r"benchmark\.py ": "minutes; tests/benchmark runs it in small",
    r"analyze_model\.py --config-file": "half a minute; tests/analysis runs it in small",
    r"convert_checkpoint\.py": "needs a ResNeSt's checkpoint; test_foreign_detectors runs it",
    r"tests/tools/": "minutes; a tool of its own",
}
# Placeholders of the documentation.
WORDS = {
    "CHECKPOINT": "latest.pth",
    "IN": "latest.pth",
    "OUT": "converted.pth",
    "FILE": "0856610.json",
    "OUTPUT_DIR": "output/demo",
    "ROOT": "data",
    "CONFIG": SMALL,
    "VOCtrainval_11-May-2012.tar": "kit",
    "VOCdevkit/VOC2012": "kit/VOC2012",
    "N": "2",
    "M": "2",
    "I": "0",
    "V": "2.11.0",
}
# What a command writes, where it must not be there before.
WRITES = {
    r"(prepare_\w+|generate_dataset)\.py .*data/mine": "data/mine",
    r"--format-only": "0856610.json",
    r"export_model\.py": "output/demo/model.onnx",
    r"train_net\.py (--dry-run )?--config-file \S+effnet": "output/mine",
}
QUICK = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]
QUICK += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"]


def reason_not_to_run(command: Command) -> str | None:
    found = (reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command.text))
    return next(found, None)


def words_of(command: Command) -> list[str]:
    """Without what stands for anything, and with files for placeholders."""
    text = re.sub(r"\[KEY VALUE \.\.\.\]|(?<= )\.\.\.", "", command.text.split(" | ")[-1])
    words = Command(command.file, text).words
    # OUTPUT_DIR is a placeholder at the end, and a key elsewhere.
    last = len(words) - 1
    return [
        word if word == "OUTPUT_DIR" and index < last else WORDS.get(word, word)
        for index, word in enumerate(words)
    ]


def program_and_arguments(command: Command):
    """The module of a program, and what is passed to it; None for what is not Python of ours."""
    words = words_of(command)
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    if not scripts or "tests/tools" in words[scripts[0]]:
        return None
    name = words[scripts[0]].removesuffix(".py").replace("/", ".")
    return importlib.import_module(name), words[scripts[0] + 1 :]


def test_there_are_commands_and_every_reason_is_needed():
    assert len(COMMANDS) > 40
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command.text) for command in COMMANDS), pattern
    run = [command for command in COMMANDS if reason_not_to_run(command) is None]
    assert len(run) > 25


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text[:70])
def test_it_is_parsed(command):
    for word in command.words:
        if word.startswith(("scripts/", "configs/", "tests/")):
            assert (REPOSITORY / word).exists(), word
    program = program_and_arguments(command)
    if program is None:
        return
    module, arguments = program
    parser = module.build_parser()
    if "--list" in arguments:
        return  # which ends the program
    intermixed = "parse_intermixed_args" in module.main.__wrapped__.__code__.co_names
    args = (parser.parse_intermixed_args if intermixed else parser.parse_args)(arguments)
    keys = get_project_cfg()
    for key in parse_opts(getattr(args, "opts", [])):
        node = keys
        for part in key.split("."):
            node = node[part]  # KeyError: there is no such key


@pytest.fixture(scope="module")
def workplace(generated_root, seeded_checkpoint, tmp_path_factory):
    """A folder with everything that the commands speak of."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("data", "data/mine", "data/generated"):
        shutil.copytree(generated_root, folder / name)
    shutil.copy(seeded_checkpoint, folder / "latest.pth")
    first, *others = sorted((folder / "data/test_images").iterdir())
    for name in ("street.jpg", "a.jpg", "b.jpg"):
        shutil.copy(first, folder / name)
    (folder / "holidays").mkdir()
    shutil.copy(others[0], folder / "holidays")
    frames = [cv2.resize(cv2.imread(str(file)), (64, 48)) for file in others[:2]]
    video = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))
    for frame in frames:
        video.write(frame)
    video.release()
    write_kit(folder / "kit/VOC2012")
    annotate(folder / "annotated")
    submission = truth_as_submission(folder / "data")
    for name in ("0856610.json", "old.json", "new.json"):
        (folder / name).write_text(json.dumps(submission))
    return folder


def annotate(folder) -> None:
    folder.mkdir()
    Image.new("RGB", (60, 40)).save(folder / "a.jpg")
    shape = {"label": "x", "points": [[1, 1], [30, 1], [30, 30]], "shape_type": "polygon"}
    (folder / "a.json").write_text(json.dumps({"imagePath": "a.jpg", "shapes": [shape]}))


def truth_as_submission(root) -> list[dict]:
    truth = json.loads((root / "test_annotations.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": list(map(float, a["bbox"])),
            "score": 0.9 - 0.01 * number,
            "segmentation": compressed_rle(
                decode_segmentation(a["segmentation"], *sizes[a["image_id"]])
            ),
        }
        for number, a in enumerate(truth["annotations"])
    ]


@pytest.fixture(scope="module")
def with_runs(workplace, exported):
    """The same, with three trained runs, a validation split and an exported model."""
    import train_net
    from scripts import split_dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        split_dataset.main(["data/mine", "--share", "0.2"])
        opts = [*QUICK, "MODEL.DEVICE", "cpu", "DATASETS.ROOT", "data/mine", "SEED", "1"]
        opts += ["SOLVER.CHECKPOINT_PERIOD", "1"]
        opts += [
            "DATASETS.TRAIN",
            "('tiny_voc_train_split',)",
            "DATASETS.TEST",
            "('tiny_voc_val',)",
        ]
        train_net.main(["--config-file", SMALL, *opts, "OUTPUT_DIR", "output/mine"])
    for name in ("demo", "other"):
        copy = workplace / f"output/{name}"
        shutil.copytree(
            workplace / "output/mine", copy, symlinks=True, copy_function=link_checkpoints
        )
    shutil.copy(exported, workplace / "output/demo/model.onnx")
    return workplace


def link_checkpoints(source: str, target: str) -> None:
    """Checkpoints, which are large and never written in place, are linked; all else is copied."""
    (os.link if source.endswith(".pth") else shutil.copy2)(source, target)


RUN = [command for command in COMMANDS if reason_not_to_run(command) is None]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text[:70])
def test_it_runs(with_runs, tmp_path, monkeypatch, command):
    folder = tmp_path / "here"
    shutil.copytree(with_runs, folder, symlinks=True, copy_function=link_checkpoints)
    monkeypatch.chdir(folder)
    for pattern, target in WRITES.items():
        if re.search(pattern, command.text):
            path = folder / target
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if "split_dataset" in command.text:
        for path in folder.glob("data/**/pascal_*l*.json"):
            if path.name != "pascal_train.json":
                path.unlink()
    module, arguments = program_and_arguments(command)
    if module.__name__ == "train_net" and "--list" not in arguments:
        # An exported model has its sizes in it.
        if "--resume" not in arguments and "output/demo/model.onnx" not in arguments:
            arguments += QUICK
        if not {"--resume", "DATASETS.ROOT"} & {*arguments}:
            arguments += ["DATASETS.ROOT", "data"]
        arguments += ["MODEL.DEVICE", "cpu"]
    if module.__name__ == "scripts.predict" and "output/demo/model.onnx" not in arguments:
        arguments = [*arguments, "--opts", "MODEL.DEVICE", "cpu"]
    if {"--half", "--int8"} & {*arguments}:
        # The model of these tests has learnt nothing: what it finds is chance.
        monkeypatch.setattr(module, "MIN_SHARE", 0)
        arguments = [*arguments, "--opts", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    if module.__name__ == "scripts.subset_dataset":
        arguments[1:] = ["3", "6"]  # the generated set has twelve
    assert exit_code(module.main, arguments) == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", documented_python())
def test_python_runs(with_runs, monkeypatch, file):
    monkeypatch.chdir(with_runs)
    exec(compile(documented_python()[file], file, "exec"), {})


def exit_code(main, arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return end.code or 0
    return 0
