"""A run that was interrupted goes on as if nothing had happened, bit for bit."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from project.checkpoint.writing import save_atomically
from project.data.loading import STOP_SIGNALS
from project.engine import Trainer
from project.engine.hooks import StopTraining
from project.engine.step import TrainStep
from project.errors import UserError
from tests.engine.helpers import config, train
from tests.helpers import REPOSITORY
from tests.tools.kill_and_resume import kill_and_resume, newest_iteration, program, wait_for


def assert_same(first, second) -> None:
    weights, states = zip(first, second, strict=True)
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    for number, state in states[0].items():
        assert torch.equal(state["momentum_buffer"], states[1][number]["momentum_buffer"])


@pytest.mark.parametrize("workers", [(0, 0), (2, 2), (0, 2)])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(generated_root, tmp_path, workers):
    first, second = (
        ("DATALOADER.NUM_WORKERS", str(workers[0])),
        ("DATALOADER.NUM_WORKERS", str(workers[1])),
    )
    whole = train(config(generated_root, tmp_path / "whole", *first))
    cfg = config(generated_root, tmp_path / "parts", *first)
    with pytest.raises(StopTraining) as stop:
        train(cfg, stop_after=2)
    assert stop.value.code == 128 + signal.SIGTERM
    assert newest_checkpoint(cfg.OUTPUT_DIR).endswith("model_0000001.pth")
    with pytest.raises(StopTraining):
        train(cfg, resume=True, stop_after=5, number=signal.SIGINT)
    assert newest_checkpoint(cfg.OUTPUT_DIR).endswith("model_0000004.pth")
    assert_same(train(config(generated_root, tmp_path / "parts", *second), resume=True), whole)


def test_another_seed_is_another_run(generated_root, tmp_path):
    first = train(config(generated_root, tmp_path / "a"))
    second = train(config(generated_root, tmp_path / "b", "SEED", "4"))
    assert not torch.equal(*(list(run[0].values())[-1] for run in (first, second)))


def test_a_run_without_a_seed_keeps_the_one_that_it_drew(generated_root, tmp_path):
    cfg = config(generated_root, tmp_path / "run", "SEED", "-1")
    with pytest.raises(StopTraining):
        train(cfg, stop_after=2)
    seeds = [read_checkpoint(newest_checkpoint(cfg.OUTPUT_DIR))["trainer"]["_trainer"]["seed"]]
    train(cfg, resume=True)
    seeds.append(read_checkpoint(newest_checkpoint(cfg.OUTPUT_DIR))["trainer"]["_trainer"]["seed"])
    assert seeds[0] == seeds[1] > 0


def test_the_signals_handlers_are_put_back(generated_root, tmp_path):
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    with pytest.raises(StopTraining) as stop:
        train(config(generated_root, tmp_path / "run"), stop_after=1, number=signal.SIGUSR1)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert before == [signal.getsignal(n) for n in STOP_SIGNALS]


@pytest.mark.parametrize("missing", ["all", "optimizer"])
def test_a_checkpoint_without_an_optimizer_cannot_be_resumed_in_silence(
    generated_root, tmp_path, missing
):
    """Such as weights alone, which are ``best.pth``, under the name of a checkpoint."""
    cfg = config(generated_root, tmp_path / "run")
    with pytest.raises(StopTraining):
        train(cfg, stop_after=1)
    path = newest_checkpoint(cfg.OUTPUT_DIR)
    content = read_checkpoint(path)
    if missing == "all":
        del content["trainer"]
    else:
        del content["trainer"]["_trainer"]
    save_atomically(content, Path(path))
    with pytest.raises(UserError, match="holds no optimizer"):
        train(cfg, resume=True)


def test_a_loss_that_is_not_finite_names_the_pictures(generated_root, tmp_path):
    cfg = config(generated_root, tmp_path / "run", "SOLVER.BASE_LR", "1e30")
    with pytest.raises(FloatingPointError) as caught:
        train(cfg)
    message = str(caught.value)
    ids = json.loads((generated_root / "pascal_train.json").read_text())["images"]
    named = re.search(r"images \[(\d+), (\d+)\]", message)
    assert {int(named[1]), int(named[2])} <= {image["id"] for image in ids}
    assert not list(Path(cfg.OUTPUT_DIR).glob("*.pth"))


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_mixed_precision_trains_on_the_cpu_too(generated_root, tmp_path, dtype):
    opts = ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype, "SOLVER.MAX_ITER", "2")
    weights, _ = train(config(generated_root, tmp_path / "run", *opts))
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_a_checkpoint_to_resume_from(generated_root, tmp_path):
    """The same, a hundred times: python tests/tools/kill_and_resume.py."""
    counts = kill_and_resume(generated_root, tmp_path / "run", kills=8, while_writing=4)
    assert counts["kills"] == 8 and counts["while_writing"] >= 4


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_saves_says_so_and_exits(generated_root, tmp_path, workers, number):
    command = program(generated_root, tmp_path / "run")
    process = subprocess.Popen(
        # These tests may be run with nohup.
        ["env", "--default-signal=HUP", *command, "DATALOADER.NUM_WORKERS", workers],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: newest_iteration(tmp_path / "run") > 0, process)
    os.killpg(process.pid, number)  # as a terminal or a cluster does: to the workers too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = output.strip().splitlines()[-1]
    assert f"Stopped by {number.name}" in last and "go on with --resume" in last
    named = re.search(r"(model_\d+\.pth) is saved", last)[1]
    assert (tmp_path / "run" / named).exists()


KEEPS_ITS_WORKERS = """
import builtins, sys
from project.data.loading import build_train_loader, training_records
from tests.helpers import load_small_config
cfg = load_small_config(sys.argv[1:])
batches = builtins.kept = iter(build_train_loader(cfg, training_records(cfg), seed=0))
next(batches)
print("fetched")
"""


def test_a_program_whose_workers_still_run_can_end(small_opts):
    command = [sys.executable, "-c", KEEPS_ITS_WORKERS, *small_opts, "DATALOADER.NUM_WORKERS", "2"]
    result = subprocess.run(command, cwd=REPOSITORY, timeout=60, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "fetched\n"), result.stderr


EVERY_SECOND = ("TEST.EVAL_PERIOD", "2")


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.EMA.ENABLED", "True"),
        ("SOLVER.ACCUMULATE", "2"),
        ("SOLVER.MAX_EPOCH", "1", "SOLVER.CHECKPOINT_EPOCHS", "1"),
        ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2", *EVERY_SECOND),
    ],
    ids=["ema", "accumulate", "epochs", "precise_bn"],
)
def test_it_is_exact_with_other_options_too(generated_root, tmp_path, opts):
    whole = train(config(generated_root, tmp_path / "whole", *opts))
    parts = config(generated_root, tmp_path / "parts", *opts)
    with pytest.raises(StopTraining):
        train(parts, stop_after=3)
    assert_same(train(parts, resume=True), whole)


def test_a_resumed_run_has_the_seed_that_was_drawn(generated_root, tmp_path, monkeypatch):
    opts = ("SEED", "-1", "TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2")
    opts += EVERY_SECOND
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 3)
    whole = train(config(generated_root, tmp_path / "whole", *opts))
    parts = config(generated_root, tmp_path / "parts", *opts)
    with pytest.raises(StopTraining):
        train(parts, stop_after=3)
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 4)
    assert_same(train(parts, resume=True), whole)


def test_the_average_is_what_is_kept_and_evaluated(generated_root, tmp_path, monkeypatch):
    opts = ("MODEL.EMA.ENABLED", "True", "SOLVER.MAX_ITER", "3")
    opts += ("DATASETS.TEST", "('tiny_voc_test_annotated',)")
    cfg = config(generated_root, tmp_path / "run", *opts)
    evaluated = []
    monkeypatch.setattr(
        Trainer, "test", lambda self, cfg, model: evaluated.append(model.state_dict()) or {}
    )
    average, _ = train(cfg)
    trained = read_checkpoint(newest_checkpoint(cfg.OUTPUT_DIR))["trainer"]["training_weights"]
    name = "roi_heads.box_head.0.fc1.weight"
    assert torch.equal(evaluated[0][name], average[name])
    assert not torch.equal(trained[name], average[name])
    assert torch.allclose(trained[name], average[name], atol=1e-2)

    # Without the average, a resumed run goes on with the weights that were trained.
    cfg = config(generated_root, tmp_path / "run", "SOLVER.MAX_ITER", "3")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert torch.equal(trainer.model.state_dict()[name], trained[name])


def test_a_batch_in_parts_takes_the_step_of_the_whole(generated_root, tmp_path):
    """Where all pictures have one size and equally many samples, and norms are frozen."""
    opts = ("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute")
    opts += ("INPUT.CROP.SIZE", "[100, 100]", "INPUT.MIN_SIZE_TRAIN", "(64,)")
    opts += ("MODEL.MASK_ON", "False", "MODEL.TIMM.NORM", "FrozenBN", "MODEL.FPN.NORM", "")
    opts += ("MODEL.ROI_BOX_HEAD.NORM", "", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8")
    opts += ("SOLVER.BASE_LR", "0.01", "SOLVER.MAX_ITER", "3")
    whole, _ = train(config(generated_root, tmp_path / "whole", *opts))
    parts, _ = train(config(generated_root, tmp_path / "parts", *opts, "SOLVER.ACCUMULATE", "2"))
    assert all(torch.allclose(value, parts[name], atol=1e-5) for name, value in whole.items())


def test_another_batch_size_goes_on_where_the_pictures_were(
    generated_root, tmp_path, caplog, monkeypatch
):
    opts = ("SOLVER.CHECKPOINT_PERIOD", "1", "DATALOADER.ASPECT_RATIO_GROUPING", "False")

    def cfg(batch_size: int, iterations: int):
        opts_of_run = ("SOLVER.IMS_PER_BATCH", str(batch_size), "SOLVER.MAX_ITER", str(iterations))
        return config(generated_root, tmp_path / "run", *opts, *opts_of_run)

    batches: list[list[int]] = []
    add_gradients = TrainStep._add_gradients

    def remember(self, batch: list[dict]) -> dict:
        batches.append([record["image_id"] for record in batch])
        return add_gradients(self, batch)

    monkeypatch.setattr(TrainStep, "_add_gradients", remember)
    train(cfg(1, 12))  # an epoch, picture by picture
    whole = list(chain(*batches))
    assert len(set(whole)) == 12
    batches.clear()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StopTraining):
        train(cfg(1, 12), stop_after=6)
    with caplog.at_level(logging.WARNING, logger="project"):
        train(cfg(3, 3), resume=True)  # fewer iterations, more pictures: 9
    assert "after 2 iterations of 3 pictures" in caplog.text
    train(cfg(1, 12), resume=True)
    assert [len(batch) for batch in batches] == [1] * 6 + [3] + [1] * 3
    assert list(chain(*batches)) == whole


def test_the_settings_of_a_resumed_run_are_those_of_its_config(generated_root, tmp_path):
    with pytest.raises(StopTraining):
        train(config(generated_root, tmp_path / "run"), stop_after=2)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["exit"], record["end_iteration"]) == ("stopped by SIGTERM", 2)
    opts = ("SOLVER.BASE_LR", "0.5", "SOLVER.WARMUP_ITERS", "0", "SOLVER.WEIGHT_DECAY", "0.25")
    cfg = config(
        generated_root, tmp_path / "run", *opts, "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)


@pytest.mark.parametrize("schedule", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_fewer_iterations_than_are_done_are_one_line(generated_root, tmp_path, schedule):
    opts = ("SOLVER.LR_SCHEDULER_NAME", schedule, "SOLVER.STEPS", "(1,)")
    with pytest.raises(StopTraining):
        train(config(generated_root, tmp_path / "run", *opts), stop_after=3)
    cfg = config(generated_root, tmp_path / "run", *opts, "SOLVER.MAX_ITER", "2")
    with pytest.raises(UserError, match=r"3 iterations are done, and SOLVER\.MAX_ITER is 2"):
        Trainer(cfg).resume_or_load(resume=True)


def test_weights_that_are_not_finite_are_not_saved(generated_root, tmp_path):
    cfg = config(generated_root, tmp_path / "run", "SOLVER.MAX_ITER", "1")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    bias = trainer.model.roi_heads.box_predictor[0].cls_score.bias
    trainer.register_hooks([Spoil(bias)])
    trainer._hooks.insert(0, trainer._hooks.pop())
    with pytest.raises(FloatingPointError, match=r"cls_score.bias is not finite, so model_final"):
        trainer.train()
    assert not list((tmp_path / "run").glob("*.pth"))


class Spoil(HookBase):
    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def after_step(self) -> None:
        self.tensor.data.fill_(float("nan"))


FULL_DISK = """
import resource, sys
import train_net
if int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
train_net.main(sys.argv[2:])
"""


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(generated_root, tmp_path):
    """A file system of its own where that is allowed; else a limit to the size of files."""
    first = config(generated_root, tmp_path / "first", "SOLVER.MAX_ITER", "1")
    whole, _ = train(first)
    size = (tmp_path / "first/model_final.pth").stat().st_size
    output = tmp_path / "disk"
    output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size)}", "tmpfs", str(output)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        shutil.copy(tmp_path / "first/model_final.pth", output)
        limit = "0" if mounted else str(size // 2)
        command = [sys.executable, "-c", FULL_DISK, limit, "--resume"]
        pairs = ["OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "2", "MODEL.DEVICE", "cpu"]
        pairs += ["SOLVER.CHECKPOINT_PERIOD", "1"]
        result = subprocess.run([*command, *pairs], cwd=REPOSITORY, capture_output=True, text=True)
        last = result.stderr.strip().splitlines()[-1]
        reason = "No space left on device" if mounted else "File too large"
        assert result.returncode == 2 and last.startswith("error: "), result.stderr
        assert f"model_final.pth cannot be written: {reason}" in last
        assert not list(output.glob("*.tmp"))
        kept = read_checkpoint(newest_checkpoint(str(output)))["model"]
        assert all(torch.equal(value, kept[name]) for name, value in whole.items())
        del kept  # it maps the file
    finally:
        if mounted:
            subprocess.run(["umount", str(output)], check=True)
