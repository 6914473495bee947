"""Write a checkpoint so that no reader ever sees half of one."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from project.errors import UserError


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` to a temporary name beside ``path``, flushed to the disk, then renamed.

    Raises:
        UserError: it cannot be written, on a full disk say; a file at ``path`` is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = _os_error(error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if reason is None:
            raise
        raise UserError(
            f"{path} cannot be written: {reason.strerror or reason}; older checkpoints are as they"
            " were: make room and start again, training with --resume"
        ) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the system behind another one, if there is one."""
    # torch.save's own error, that its file is not as long as it should be, hides the reason.
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
