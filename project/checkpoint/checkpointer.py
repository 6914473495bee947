"""Detectron2's checkpointer, made unable to leave a half-written file behind."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from project.checkpoint.loading import fill_model
from project.checkpoint.reading import (
    find_weights,
    iteration_of,
    periodic_checkpoints,
    read_checkpoint,
)
from project.checkpoint.writing import save_atomically
from project.files import write_text

LATEST, BEST = "latest.pth", "best.pth"


class Checkpointer(DetectionCheckpointer):
    """Saves by writing aside and renaming; loads every known format, completely or not at all.

    Args:
        model: the model, or its ``DistributedDataParallel`` wrapper.
        save_dir: the run's directory.
        metadata: plain data that every checkpoint carries ("config", "categories").
        allow_partial: see :func:`project.checkpoint.loading.load_weights`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        metadata: dict[str, Any] | None = None,
        allow_partial: bool = False,
        save_to_disk: bool | None = None,
        **checkpointables,
    ):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.metadata = metadata or {}
        self.allow_partial = allow_partial
        self._source = ""

    def save(self, name: str, **kwargs) -> None:
        """Write ``save_dir/name.pth``, then point ``latest.pth`` and ``last_checkpoint`` to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **self.metadata}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)

        path = Path(self.save_dir) / f"{name}.pth"
        save_atomically(data, path)
        self.logger.info(f"Saved {path}")
        self.tag_last_checkpoint(path.name)

    def save_best(self, **kwargs) -> None:
        """Write ``best.pth``: the model and its metadata, without what only training needs."""
        if self.save_dir and self.save_to_disk:
            content = {"model": self.model.state_dict(), **self.metadata, **kwargs}
            save_atomically(content, Path(self.save_dir) / BEST)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record the newest checkpoint, as fvcore does, and as ``latest.pth`` for people."""
        write_text(last_filename_basename, Path(self.save_dir) / "last_checkpoint")
        point_to(Path(self.save_dir) / LATEST, last_filename_basename)

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        self._source = path
        if path:
            path = find_weights(path, self.save_dir)
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return read_checkpoint(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        fill_model(self.model, checkpoint.pop("model"), self._source, self.allow_partial)


def point_to(link: Path, target_name: str) -> None:
    """Let ``link`` be a relative symlink to its neighbour ``target_name``, replaced in one step.

    Where the file system has no links, ``link`` is a copy.
    """
    temporary = link.with_name(link.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target_name)
    except OSError:
        shutil.copyfile(link.with_name(target_name), temporary)
    os.replace(temporary, link)


def remove_old_checkpoints(
    output_dir: str | Path, *, last: int, every: int, best: Collection[int] = ()
) -> None:
    """Remove the periodic checkpoints of a run but the newest.

    Args:
        last: how many of the newest ones stay; 0 for all.
        every: those after a multiple of so many iterations stay too; 0 for none.
        best: those of these iterations, from 0, stay too.
    """
    if last <= 0:
        return
    for path in periodic_checkpoints(output_dir)[last:]:
        iteration = iteration_of(path)
        if iteration not in best and (not every or (iteration + 1) % every):
            path.unlink()
