"""Write a checkpoint so that no reader ever sees half of one."""

import os
from pathlib import Path
from typing import Any

import torch


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` to a temporary name beside ``path``, flushed to the disk, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
