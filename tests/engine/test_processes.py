"""Several processes on CPUs: the result of one, exact resume, and an end when one fails."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from project.engine.launch import Processes
from project.errors import UserError
from tests.helpers import REPOSITORY, SMALL_CONFIG
from tests.tools.kill_and_resume import wait_for

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """An odd number of test pictures, which two processes cannot share evenly."""
    from project.data.synthetic import generate_dataset

    folder = tmp_path_factory.mktemp("odd")
    generate_dataset(folder, num_train=8, num_test=5, seed=7)
    return folder


def pairs(root: Path, output: Path, *opts: str) -> list[str]:
    return [
        *("MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(root), "OUTPUT_DIR", str(output)),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SEED", "1"),
        *("SOLVER.IMS_PER_BATCH", "2", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
        *("TEST.DETECTIONS_PER_IMAGE", "5", *opts),
    ]


def start(words: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env={**ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=170)
    assert process.returncode == code, output[-3000:]
    return output


def train(root: Path, output: Path, *opts: str, processes: int) -> dict[str, torch.Tensor]:
    command = ["train_net.py", "--config-file", str(SMALL_CONFIG), "--num-gpus", str(processes)]
    finish(start([*command, *pairs(root, output, "DATASETS.TEST", "()", *opts)]))
    return read_checkpoint(newest_checkpoint(str(output)))["model"]


@pytest.mark.parametrize(
    "function",
    [
        "batchnorm_is_that_of_all_batches",
        "means_are_over_all_samples",
        "statistics_become_those_of_the_main_process",
    ],
)
def test_in_two_processes(function):
    assert finish(start(["tests/tools/run_processes.py", function])) is not None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "one_raises",
            r"error: process 1 failed \(exit code 1\): FloatingPointError: iteration 3",
        ),
        pytest.param(
            "one_is_killed",
            r"error: process 1 failed \(exit code -9\)",
            marks=pytest.mark.slow,
        ),
        (
            "one_has_a_loss_that_is_not_finite",
            r"error: process \d failed \(exit code 1\): FloatingPointError: iteration 1,"
            r" images \[7, 9\]: a loss is not finite",
        ),
    ],
)
def test_when_one_process_fails_all_end_and_its_error_is_the_last_word(function, message):
    began = time.monotonic()
    process = start(["tests/tools/run_processes.py", function])
    output, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert time.monotonic() - began < 60
    assert re.match(message, output.strip().splitlines()[-1]), output[-2000:]
    deadline = time.monotonic() + 10
    while session_lives(process.pid):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)


def test_a_mistake_that_one_process_meets_is_one_line():
    output = finish(start(["tests/tools/run_processes.py", "one_meets_a_mistake_of_the_user"]), 2)
    assert output.strip().splitlines()[-1] == "error: choose another: name"
    assert "project.errors.UserError" not in output  # as at the end of a traceback


def session_lives(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_two_processes_with_a_picture_each_are_one_with_two(root, tmp_path):
    """With frozen norms and losses divided by the counts of all processes."""
    opts = ("SOLVER.MAX_ITER", "3", "SOLVER.SYNC_LOSS_NORMALIZER", "True", "SOLVER.BASE_LR", "0.01")
    opts += ("MODEL.FPN.NORM", "", "MODEL.ROI_BOX_HEAD.NORM", "", "MODEL.ROI_MASK_HEAD.NORM", "")
    opts += ("MODEL.RPN.LOSS_NORMALIZER", "sampled", "DATALOADER.ASPECT_RATIO_GROUPING", "True")
    one = train(root, tmp_path / "one", *opts, processes=1)
    two = train(root, tmp_path / "two", *opts, processes=2)
    assert all(torch.allclose(value, two[name], atol=1e-5) for name, value in one.items())


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(root, tmp_path):
    opts = ("SOLVER.MAX_ITER", "2", "MODEL.TIMM.NORM", "SyncBN", "MODEL.FPN.NORM", "SyncBN")
    train(root, tmp_path / "run", *opts, processes=2)
    files = ("evaluation.json", "inference/tiny_voc_test_annotated/detections.json")
    seen = []
    for number in ("1", "2"):
        words = ["train_net.py", "--eval-only", "--num-gpus", number]
        weights = str(tmp_path / "run/latest.pth")
        output = ("OUTPUT_DIR", str(tmp_path / number), "MODEL.DEVICE", "cpu")
        words += [
            "DATASETS.TEST",
            "('tiny_voc_test_annotated',)",
            "MODEL.WEIGHTS",
            weights,
            *output,
        ]
        finish(start(words))
        seen.append([json.loads((tmp_path / number / name).read_text()) for name in files])
    assert seen[0] == seen[1] and len(seen[0][1]) == 25


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_after_a_signal(root, tmp_path):
    opts = ("SOLVER.MAX_ITER", "12", "SOLVER.CHECKPOINT_PERIOD", "2", "MODEL.FPN.NORM", "SyncBN")
    whole = train(root, tmp_path / "whole", *opts, processes=2)
    command = ["train_net.py", "--config-file", str(SMALL_CONFIG), "--num-gpus", "2"]
    words = pairs(root, tmp_path / "parts", "DATASETS.TEST", "()", *opts)
    process = start([*command, *words])
    wait_for(lambda: list((tmp_path / "parts").glob("model_*.pth")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    output = finish(process, code=128 + signal.SIGINT)
    assert "Stopped by SIGINT" in output
    assert not (tmp_path / "parts/model_final.pth").exists()
    finish(start([*command, "--resume", *words, "DATALOADER.NUM_WORKERS", "1"]))
    parts = read_checkpoint(newest_checkpoint(str(tmp_path / "parts")))["model"]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
def test_fewer_processes_go_on_with_the_epochs_of_more(root, tmp_path):
    """Of 8 pictures: 2 processes have batches of 4 for them, then one has batches of 2.

    Most pictures have no objects, so that often one process, or each, has no positives.
    """
    content = json.loads((root / "pascal_train.json").read_text())
    alone = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == alone]
    (root / "sparse.json").write_text(json.dumps(content))
    opts = ("SOLVER.REFERENCE_WORLD_SIZE", "1", "SOLVER.MAX_EPOCH", "2", "MODEL.FPN.NORM", "SyncBN")
    opts += ("TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2")
    opts += ("DATASETS.TRAIN", "('custom_train',)", "DATASETS.TRAIN_JSON", "sparse.json")
    opts += ("DATASETS.TRAIN_IMAGES", "train_images", "MODEL.ROI_MASK_HEAD.NORM", "SyncBN")
    opts += ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False")
    output = tmp_path / "run"
    train(root, output, *opts, processes=2)
    assert read_checkpoint(str(output / "model_final.pth"))["iteration"] == 3
    stored = yaml.safe_load((output / "config.yaml").read_text())["SOLVER"]
    assert (stored["IMS_PER_BATCH"], stored["REFERENCE_WORLD_SIZE"]) == (4, 2)
    assert "Auto-scaling" in (output / "log.txt").read_text()
    command = ["train_net.py", "--resume", "OUTPUT_DIR", str(output), "MODEL.DEVICE", "cpu"]
    log = finish(start([*command, "SOLVER.MAX_EPOCH", "3"]))
    said = "of 2 process(es) after 4 iterations; 1 go on, after 8 iterations of 2 pictures"
    assert said in log
    assert read_checkpoint(str(output / "model_final.pth"))["iteration"] == 11


@pytest.mark.slow
def test_two_machines_of_which_each_has_its_rank(root, tmp_path):
    command = ["train_net.py", "--config-file", str(SMALL_CONFIG), "--num-gpus", "1"]
    command += ["--num-machines", "2", "--dist-url", f"tcp://localhost:{free_port()}"]
    words = pairs(root, tmp_path / "run", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2")
    machines = [start([*command, "--machine-rank", str(rank), *words]) for rank in (0, 1)]
    for machine in machines:
        finish(machine)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["processes"], record["exit"]) == (2, "finished")


@pytest.mark.slow
def test_torchrun_starts_the_program_as_it_is(root, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, "train_net.py", "--config-file", str(SMALL_CONFIG)]
    words += pairs(root, tmp_path / "run", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2")
    finish(start(words))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["processes"], record["exit"]) == (2, "finished")
    # Another job does not mix with it; the first process says why.
    output = finish(start(words), code=1)
    assert output.count("error: OUTPUT_DIR") == 1 and "already holds a run" in output
    # It may replace it, if it can begin: all processes find out together, and draw a seed.
    words += ["SEED", "-1"]
    at = words.index("--config-file")
    words.insert(at, "--overwrite")
    refused = finish(start([*words, "TEST.EARLY_STOP_PATIENCE", "1"]), code=1)
    assert refused.count("error: TEST.EARLY_STOP_PATIENCE counts evaluations") == 1
    assert json.loads((tmp_path / "run/run.json").read_text())["end_iteration"] == 2
    finish(start([*words, "SOLVER.MAX_ITER", "3"]))
    assert json.loads((tmp_path / "run/run.json").read_text())["end_iteration"] == 3


@pytest.mark.slow
def test_one_process_of_torchrun_has_sync_batchnorm_on_a_cpu(root, tmp_path):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    words += ["train_net.py", "--config-file", str(SMALL_CONFIG)]
    words += pairs(root, tmp_path / "run", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "1")
    finish(start([*words, "MODEL.FPN.NORM", "SyncBN"]))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["nohup", "env --default-signal=HUP"])
def test_a_hangup_saves_and_ends_the_run_but_after_nohup(root, tmp_path, command):
    opts = ("SOLVER.MAX_ITER", "12", "SOLVER.CHECKPOINT_PERIOD", "2")
    words = ["train_net.py", "--config-file", str(SMALL_CONFIG), "--num-gpus", "2"]
    words += pairs(root, tmp_path / "run", "DATASETS.TEST", "()", *opts)
    process = subprocess.Popen(
        [*command.split(), sys.executable, *words],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list((tmp_path / "run").glob("model_*.pth")), process)
    os.killpg(process.pid, signal.SIGHUP)  # as a connection does that is lost
    process.communicate(timeout=170)
    record = json.loads((tmp_path / "run/run.json").read_text())
    if command == "nohup":
        assert (process.returncode, record["exit"]) == (0, "finished")
    else:
        assert (process.returncode, record["exit"]) == (128 + signal.SIGHUP, "stopped by SIGHUP")
        newest = read_checkpoint(newest_checkpoint(str(tmp_path / "run")))
        assert newest["iteration"] + 1 == record["end_iteration"] < 12


@pytest.mark.slow
def test_torchrun_goes_on_after_one_of_two_nodes_was_killed(root, tmp_path):
    """Two nodes with a process each on this machine; the second is killed and started again."""
    output = tmp_path / "run"
    opts = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", "60", "SOLVER.CHECKPOINT_PERIOD", "3")
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    torchrun += ["--rdzv-id", "the-job", "--max-restarts", "5", "--local-addr", "localhost"]
    words = [*torchrun, "train_net.py", "--config-file", str(SMALL_CONFIG)]
    words += pairs(root, output, *opts)
    # Else torch's restarted nodes wait for an address that is not given again.
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    nodes = [start(words, environment)]
    try:
        time.sleep(2)  # the first one holds the meeting point
        nodes.append(start(words, environment))
        wait_for(lambda: list(output.glob("model_*.pth")), nodes[0])
        kill_with_children(nodes.pop())
        time.sleep(20)  # a node counts as dead after three heartbeats of five seconds
        nodes.append(start(words, environment))
        for node in nodes:
            finish(node)
    finally:
        for node in nodes:
            kill_with_children(node)
    assert read_checkpoint(str(output / "latest.pth"))["iteration"] == 59
    assert (output / "torchrun_job").read_text() == "the-job"
    assert "Going on after iteration" in (output / "log.txt").read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def kill_with_children(process: subprocess.Popen) -> None:
    """Torch's processes have sessions of their own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    numbers = children.read_text().split() if process.poll() is None else []
    for number in [process.pid, *map(int, numbers)]:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machines": 2}, "needs --dist-url"),
        ({"machines": 2, "dist_url": "tcp://node0"}, "with a port"),
        ({"machines": 2, "machine_rank": 2, "dist_url": "tcp://a:1"}, "choose 0 to 1"),
    ],
)
def test_machines_that_cannot_meet_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        Processes(1, "cpu", **arguments)


# srun's own option and its value come first.
STAND_INS = {"srun": '#!/bin/sh\nshift 2\nexec "$@"\n', "scontrol": "#!/bin/sh\necho localhost\n"}


@pytest.mark.slow
def test_the_slurm_script_starts_training_and_a_job_queued_again_goes_on(root, tmp_path):
    """With stand-ins for SLURM's programs, which are not here."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **{**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"},
        **{"SLURM_SUBMIT_DIR": str(REPOSITORY)},
    }
    words = ["--config-file", str(SMALL_CONFIG), *pairs(root, tmp_path / "run")]
    for iterations in ("2", "4"):
        more = ["DATASETS.TEST", "()", "SOLVER.MAX_ITER", iterations]
        command = ["bash", "scripts/train_slurm.sh", *words, *more]
        result = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr[-3000:]
        record = json.loads((tmp_path / "run/run.json").read_text())
        assert (tmp_path / "run/torchrun_job").read_text() == "4711"
        record["exit"] = "stopped by SIGUSR1"  # as if it had been taken from its machine
        (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert "Going on after iteration 2 of 4" in result.stdout + result.stderr


def test_the_slurm_script_says_how_to_start_it():
    command = ["bash", "scripts/train_slurm.sh"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode != 0 and "start this file with sbatch" in result.stderr
