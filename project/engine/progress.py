"""The line on the console while a model trains."""

import logging

from detectron2.utils.events import CommonMetricPrinter, EventStorage, get_event_storage

from project.memory import peak_memory_of_device

logger = logging.getLogger(__name__)

WINDOW = 20  # iterations that a line summarises, as in Detectron2


class ProgressPrinter(CommonMetricPrinter):
    """Detectron2's printer with one short line; single losses are for the other writers' files.

    Goes before those, which then write its ``images_per_second`` (a median, without evaluations)
    and ``memory_mib`` (the largest so far) too.

    Args:
        max_iter: iterations of the run.
        batch_size: pictures in an iteration, of all processes.
        device: whose memory is shown, "cuda" or "cpu": see
            :func:`project.memory.peak_memory_of_device`.
    """

    def __init__(self, max_iter: int, *, batch_size: int, device: str):
        super().__init__(max_iter, window_size=WINDOW)
        self._batch_size = batch_size
        self._device = device
        self._last_iteration = -1

    def write(self) -> None:
        storage = get_event_storage()
        # Detectron2 writes once more when training ends, for whatever reason.
        _, finished = storage.latest().get("lr", (0.0, -1))  # an iteration's last scalar
        if finished != storage.iter or finished == self._last_iteration:
            return
        self._last_iteration = finished
        memory = peak_memory_of_device(self._device)[0]
        storage.put_scalar("memory_mib", memory // 2**20, smoothing_hint=False)
        done = storage.iter + 1
        parts = [
            f"iter {done}/{self._max_iter} {done / self._max_iter:.0%}",
            f"loss {storage.history('total_loss').median(WINDOW):.4g}",
            f"lr {storage.history('lr').latest():.3g}",
            *self._speed(storage),
            f"{memory / 2**30:.1f} GiB",
        ]
        eta = self._get_eta(storage)
        logger.info("  ".join(parts + ([f"ETA {eta}"] if eta else [])))

    def _speed(self, storage: EventStorage) -> list[str]:
        """Time and share of waiting for data; the first iterations are not timed."""
        if "time" not in storage.histories():
            return []
        seconds = storage.history("time").median(WINDOW)
        rate = self._batch_size / seconds
        storage.put_scalar("images_per_second", rate, smoothing_hint=False)
        return [f"{seconds:.3g} s/iter", f"data wait {share_of_waiting(storage, WINDOW):.0%}"]


def share_of_waiting(storage: EventStorage, window: int) -> float:
    """The share of the last ``window`` iterations that was spent waiting for data.

    Of those that were timed: the very first one waits for the workers to start.
    """
    timed = min(window, len(storage.history("time").values()))
    waited, seconds = (storage.history(name).avg(timed) for name in ("data_time", "time"))
    return waited / seconds
