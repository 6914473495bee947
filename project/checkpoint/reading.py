"""Read a weights file into memory, without running anything that is in it."""

import json
import logging
import math
import pickle
import re
import struct
import threading
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file

from project.checkpoint.safe_globals import SAFE_GLOBALS
from project.dependencies import require_package
from project.errors import UserError, reason_of
from project.runtime import is_exported

logger = logging.getLogger(__name__)


def find_weights(path: str, output_dir: str = "") -> str:
    """The local file of ``MODEL.WEIGHTS``.

    Args:
        path: a file, or a URL of Detectron2's PathManager. A relative one is looked up in the
            working directory, then in ``output_dir``.

    Raises:
        UserError: there is no such file.
    """
    if "://" in path:
        try:
            local = PathManager.get_local_path(path)
        except OSError as error:
            raise UserError(f"MODEL.WEIGHTS {path} cannot be downloaded: {error}") from error
        # A kind of URL that nobody knows is taken for the name of a file.
        if not Path(local).is_file():
            raise UserError(f"MODEL.WEIGHTS {path}: there is no such file, or kind of address")
        return local
    candidates = [Path(path)]
    if output_dir and not Path(path).is_absolute():
        candidates.append(Path(output_dir) / path)
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    places = " or ".join(f"{str(candidate)!r}" for candidate in candidates)
    raise UserError(f"MODEL.WEIGHTS: there is no file {places}")


def newest_checkpoint(output_dir: str) -> str:
    """The checkpoint that ``--resume`` goes on from: the newest one that is intact.

    A damaged one is named in a warning, and the one before is taken.

    Raises:
        UserError: there is none.
    """
    final = Path(output_dir) / "model_final.pth"
    candidates = [*([final] if final.is_file() else []), *periodic_checkpoints(output_dir)]
    # Damaged ones first, to be named. A run that was made longer has newer ones than the final one.
    for path in sorted(candidates, key=lambda path: -pictures_seen(path, damaged=math.inf)):
        if is_intact(path):
            return str(path)
    damaged = " that is not damaged" if candidates else ""
    raise UserError(f"--resume: there is no checkpoint{damaged} in OUTPUT_DIR {output_dir!r}")


def periodic_checkpoints(output_dir: str | Path) -> list[Path]:
    """``model_0000123.pth`` and so on in a run's directory, the newest first, damaged ones last."""
    found = Path(output_dir).glob("model_*.pth")
    numbered = [path for path in found if re.fullmatch(r"model_\d+", path.stem)]
    return sorted(
        numbered, key=lambda path: (pictures_seen(path), iteration_of(path)), reverse=True
    )


def iteration_of(path: Path) -> int:
    """The last iteration, from 0, of a periodic checkpoint."""
    return int(path.stem.removeprefix("model_"))


def pictures_seen(path: Path, damaged: float = -1) -> float:
    """How many training pictures a checkpoint's model has seen, each time that it saw it.

    Unlike iterations, these can be compared where a run went on with another batch size.

    Args:
        damaged: the value for a file that cannot be read.
    """
    status = path.stat()
    seen = _pictures_seen(str(path), status.st_size, status.st_mtime_ns)
    return damaged if seen is None else seen


@lru_cache(maxsize=1024)
def _pictures_seen(path: str, size: int, mtime_ns: int) -> int | None:
    try:
        content = read_checkpoint(path)
    except UserError:
        return None
    return content.get("trainer", {}).get("pictures", content.get("iteration", -1))


def is_intact(path: Path) -> bool:
    """Whether every part of a checkpoint has the checksum that was written with it.

    Where it has not, that is logged.
    """
    status = path.stat()
    return _is_intact(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)  # several parts of a program ask, and a gigabyte takes a second
def _is_intact(path: str, size: int, mtime_ns: int) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        damaged = str(error)
    if damaged:
        logger.warning(f"{path} is damaged ({damaged}); the checkpoint before it is used")
    return not damaged


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint into ``{"model": state dict, ...}``; further entries as they were saved.

    mmdetection's "state_dict" becomes "model". Tensors stay on disk until they are used (``mmap``),
    so reading just the config is cheap.

    Raises:
        UserError: the file is damaged, or holds objects that are not on the short list of
            :mod:`project.checkpoint.safe_globals`; or it is an exported model.
    """
    if is_exported(path):
        raise UserError(
            f"{path} is an exported model, which can be used and evaluated, but not trained or"
            " converted; name the checkpoint that it was made from"
        )
    try:
        content = load_file(path) if path.endswith(".safetensors") else _load_pickle(path)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:global:? (?:GLOBAL )?)([\w.]+)", str(error), re.IGNORECASE)
        if "weights_only" in str(error).lower() or culprit:
            name = f" ({culprit[1]})" if culprit else ""
            raise UserError(
                f"{path} holds other Python objects than tensors and plain data{name}; such a file"
                " can run code when it is read, so it is refused"
            ) from error
        raise UserError(f"{path} is not a weights file, or is damaged") from error
    except _DAMAGED as error:
        raise UserError(
            f"{path} is not a weights file, or is damaged ({reason_of(error)})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            state = content.pop(key)
            break
    else:
        state, content = content, {}
    state = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no dictionary of tensors")
    return {**content, "model": state}


def read_description(path: str) -> dict[str, Any]:
    """What a weights file says about itself: "config", "categories" and more, if it does.

    Args:
        path: of a checkpoint, or of an exported model (``.onnx``).

    Raises:
        UserError: as of :func:`read_checkpoint` and :class:`project.runtime.detector.OnnxDetector`.
    """
    if not is_exported(path):
        return read_checkpoint(path)
    require_package("onnxruntime")
    status = Path(path).stat()
    return _description_of_exported(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)  # several parts of a program ask, and a ResNeSt-50 takes a second
def _description_of_exported(path: str, size: int, mtime_ns: int) -> dict[str, Any]:
    # Here, because most programs do without onnxruntime.
    from project.runtime.detector import OnnxDetector

    metadata = OnnxDetector(path).metadata
    return {"config": metadata["config"], "categories": json.loads(metadata["categories"])}


_reading = threading.Lock()
# What torch and safetensors raise for files that are cut off, or have a byte changed.
_DAMAGED = (
    *(RuntimeError, EOFError, ValueError, LookupError, AssertionError, TypeError, AttributeError),
    *(struct.error, SafetensorError, zipfile.BadZipFile),
)


def _load_pickle(path: str) -> object:
    # The format of torch < 1.6 is not a zip file and cannot be mapped.
    mmap = zipfile.is_zipfile(path)
    with open(path, "rb") as file:
        begins_as_pickle = file.read(1) == pickle.PROTO
    if not mmap and not begins_as_pickle:  # a web page, say, or a Git LFS pointer
        raise ValueError("neither a zip file nor a pickle")
    # They are the whole process's: another thread that is done would take them away.
    with _reading, torch.serialization.safe_globals(SAFE_GLOBALS):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def class_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes that a foreign checkpoint was trained on, where it says so.

    mmdetection 2 has them in ``meta["CLASSES"]``, version 3 in ``meta["dataset_meta"]``.

    Args:
        content: what :func:`read_checkpoint` returned.
    """
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return None
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, Mapping) else {}
    names = dataset.get("classes") or dataset.get("CLASSES") or meta.get("CLASSES")
    if isinstance(names, str):
        return (names,)
    return tuple(map(str, names)) if names else None
