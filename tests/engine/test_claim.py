"""Whose run is in OUTPUT_DIR, when the program is started again, or a second time."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from project.engine import output_dir
from project.engine import run as run_module
from project.engine.job import Job
from project.engine.run import prepare_and_run
from project.errors import UserError
from tests.helpers import load_small_config


@pytest.fixture
def start(small_opts, tmp_path, monkeypatch):
    """Start the program as torchrun does, but for training: (number of restarts, job) -> job."""
    jobs = []
    monkeypatch.setattr(run_module, "run", lambda cfg, job: jobs.append(job))

    def start(restarts: int = 0, job: Job | None = None, job_id: str = "none") -> Job:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", job_id)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
        prepare_and_run(load_small_config(small_opts), job or Job())
        return jobs[-1]

    return start


@pytest.fixture
def leave_checkpoint(seeded_checkpoint, tmp_path):
    def leave_checkpoint(exit: str = "running") -> None:
        shutil.copy(seeded_checkpoint, tmp_path / "run/model_0000001.pth")
        (tmp_path / "run/last_checkpoint").write_text("model_0000001.pth")
        (tmp_path / "run/run.json").write_text(json.dumps({"exit": exit}))

    return leave_checkpoint


def test_a_restart_goes_on_with_its_own_run(start, leave_checkpoint):
    assert not start().resume
    again = start(restarts=1)  # before the first checkpoint
    assert again.overwrite and not again.resume
    leave_checkpoint()
    assert start(restarts=1).resume


def test_a_restart_does_not_touch_what_the_first_start_was_refused_for(
    start, leave_checkpoint, tmp_path
):
    (tmp_path / "run").mkdir()
    leave_checkpoint()
    for restarts in (0, 1):
        with pytest.raises(UserError, match="already holds a run"):
            start(restarts)
    again = start(restarts=1, job=Job(overwrite=True))  # the first start failed before it
    assert again.overwrite and not again.resume


def test_a_job_of_the_same_id_goes_on_unless_it_is_finished(start, leave_checkpoint):
    start(job_id="4711")
    leave_checkpoint()
    assert start(job_id="4711").resume
    with pytest.raises(UserError, match="already holds a run"):
        start(job_id="4712")
    for reason in ("finished", "stopped by TEST.EARLY_STOP_PATIENCE"):
        leave_checkpoint(reason)
        with pytest.raises(UserError, match="already holds a run"):
            start(job_id="4711")


def test_a_start_that_failed_before_its_first_iteration_is_no_run(start, tmp_path):
    start()
    (tmp_path / "run/metrics.json").touch()
    assert not start().overwrite


def test_a_checkpoint_of_another_origin_is_not_replaced(start, tmp_path):
    """latest.pth is the name of mmdetection's too, which is evaluated where it lies."""
    latest = tmp_path / "run/latest.pth"
    latest.parent.mkdir(exist_ok=True)
    latest.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"would replace .*latest\.pth"):
        start()
    assert latest.read_bytes() == b"weights"
    start(job=Job(overwrite=True))


# Trains, as far as the lock is concerned, until its standard input ends; a worker outlives it.
TRAINING = """
import os, sys, time
from project.config import load_config
from project.engine.output_dir import claim_output_dir
claim_output_dir(load_config("", ["OUTPUT_DIR", sys.argv[1]]), [])
if os.fork() == 0:
    os.close(1)
    time.sleep(60)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("job", [Job(), Job(resume=True), Job(overwrite=True)])
def test_a_run_that_is_going_on_is_left_alone(start, leave_checkpoint, tmp_path, job):
    run = tmp_path / "run"
    command = [sys.executable, "-c", TRAINING, str(run)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as training:
        process = training.stdout.readline().strip()
        if job != Job():
            leave_checkpoint()
        before = sorted(run.iterdir())
        with pytest.raises(UserError, match=rf"is going on there \(process {process} on "):
            start(job=job)
        assert sorted(run.iterdir()) == before
        training.kill()
        training.wait()
        start(job=job)
        os.killpg(training.pid, signal.SIGKILL)


def test_the_lock_of_a_lost_machine_does_not_stop_its_own_job(start, tmp_path, leave_checkpoint):
    assert not start(job_id="4711").resume
    leave_checkpoint()
    output_dir._held.clear()
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX);"
    code += "print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "run/run.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert start(job_id="4711").resume
        with pytest.raises(UserError, match=r"delete run\.lock there"):
            start(job=Job(resume=True), job_id="4712")
        holder.kill()


def test_a_folder_that_cannot_be_written_to_is_said(start, tmp_path):
    (tmp_path / "run/run.lock").mkdir(parents=True)
    with pytest.raises(UserError, match="run' cannot be written to"):
        start()
