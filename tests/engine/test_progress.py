"""The line on the console while a model trains, and the scalars that come with it."""

import json
import logging

import pytest
from detectron2.utils.events import EventStorage, JSONWriter

from project.engine.progress import ProgressPrinter, share_of_waiting


def put(storage: EventStorage, iteration: int, **scalars: float) -> None:
    storage.iter = iteration
    for name, value in scalars.items():
        storage.put_scalar(name, value, smoothing_hint=name != "lr")


def lines(caplog) -> list[str]:
    return [x.getMessage() for x in caplog.records if x.name == "project.engine.progress"]


@pytest.fixture(autouse=True)
def log(caplog):
    with caplog.at_level(logging.INFO, logger="project"):
        yield


def test_a_line_says_what_a_user_wants_to_know(caplog):
    with EventStorage() as storage:
        for iteration in range(20):
            # The first iteration waits for the workers to start; the first two are not timed.
            put(storage, iteration, data_time=0.05 if iteration else 30, lr=0.0125, loss_mask=0.7)
            put(storage, iteration, total_loss=9.0 if iteration == 7 else 2.0)
            if iteration >= 2:
                put(storage, iteration, time=0.5)
        ProgressPrinter(440, batch_size=4, device="cpu").write()
    (line,) = lines(caplog)
    expected = ["iter 20/440 5%", "loss 2 ", "lr 0.0125", "0.5 s/iter", "data wait 10%", "GiB"]
    assert all(part in line for part in [*expected, "ETA 0:03:30"])
    assert "mask" not in line


def test_a_line_fits_the_console_however_long_the_run(caplog):
    with EventStorage() as storage:
        for iteration in (123454, 123455):
            put(storage, iteration, data_time=0.1234, time=0.98765, lr=1.23456e-5)
            put(storage, iteration, total_loss=12.3456)
        ProgressPrinter(270000, batch_size=16, device="cpu").write()
    (line,) = lines(caplog)
    assert "1 day" in line and len(line) <= 110


def test_speed_and_memory_get_into_the_files_of_the_writers_behind_it(tmp_path):
    with EventStorage() as storage:
        for iteration in range(3):
            put(storage, iteration, data_time=0.0, time=0.5, lr=0.1, total_loss=1.0)
        for writer in (
            ProgressPrinter(9, batch_size=4, device="cpu"),
            JSONWriter(str(tmp_path / "metrics.json")),
        ):
            writer.write()
    row = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert row["images_per_second"] == 8
    assert 50 < row["memory_mib"] < 2**20
    assert row["eta_seconds"] == 3


def test_the_first_iterations_have_a_line_and_none_has_two(caplog):
    printer = ProgressPrinter(3, batch_size=4, device="cpu")
    with EventStorage() as storage:
        put(storage, 0, data_time=0.1, lr=0.1, total_loss=1.5)
        printer.write()
        put(storage, 2, data_time=0.1, time=0.5, lr=0.1, total_loss=1.0)
        printer.write()
        printer.write()  # as Detectron2 does when a signal has ended training
        storage.iter = 3  # and when all is done
        printer.write()
    first, last = lines(caplog)
    assert "iter 1/3" in first and "loss 1.5" in first and "s/iter" not in first
    assert "iter 3/3 100%" in last and "ETA 0:00:00" in last


def test_an_iteration_that_failed_has_no_line(caplog):
    printer = ProgressPrinter(3, batch_size=4, device="cpu")
    with EventStorage() as storage:
        printer.write()  # the very first one
        put(storage, 0, data_time=0.1, total_loss=1.5)
        printer.write()  # the optimizer's step of the first one
        put(storage, 0, lr=0.1)
        printer.write()
        storage.iter = 1
        printer.write()  # the second one
    (line,) = lines(caplog)
    assert "iter 1/3" in line


def test_waiting_is_that_of_the_window():
    with EventStorage() as storage:
        for iteration in range(40):
            waits = 0.4 if iteration < 20 else 0.1
            put(storage, iteration, data_time=waits, time=0.5)
        assert share_of_waiting(storage, 20) == pytest.approx(0.2)
        assert share_of_waiting(storage, 40) == pytest.approx(0.5)
