"""Whose run is in OUTPUT_DIR, when torchrun starts the program again."""

import json
import shutil

import pytest

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
