"""Training hooks that Detectron2 lacks."""

import time

from detectron2.engine import hooks
from detectron2.utils.events import EventWriter


class TimedWriter(hooks.PeriodicWriter):
    """Detectron2's ``PeriodicWriter`` that also writes after ``seconds`` without a line.

    On a CPU 20 iterations can take minutes, and silence looks like a hang.
    """

    def __init__(self, writers: list[EventWriter], period: int = 20, seconds: float = 10.0):
        super().__init__(writers, period)
        self._seconds = seconds
        self._last_write = 0.0

    def before_train(self) -> None:
        self._last_write = time.monotonic()

    def after_step(self) -> None:
        now = time.monotonic()
        done = self.trainer.iter + 1
        if (
            done % self._period == 0
            or done == self.trainer.max_iter
            or now - self._last_write >= self._seconds
        ):
            self._last_write = now
            for writer in self._writers:
                writer.write()
