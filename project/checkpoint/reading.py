"""Read a weights file into memory, without running anything that is in it."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file

from project.checkpoint.safe_globals import SAFE_GLOBALS
from project.errors import UserError


def find_weights(path: str, output_dir: str = "") -> str:
    """The local file of ``MODEL.WEIGHTS``.

    Args:
        path: a file, or a URL of Detectron2's PathManager. A relative one is looked up in the
            working directory, then in ``output_dir``.

    Raises:
        UserError: there is no such file.
    """
    if "://" in path:
        return PathManager.get_local_path(path)
    candidates = [Path(path)]
    if output_dir and not Path(path).is_absolute():
        candidates.append(Path(output_dir) / path)
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    places = " or ".join(f"{str(candidate)!r}" for candidate in candidates)
    raise UserError(f"MODEL.WEIGHTS: there is no file {places}")


def newest_checkpoint(output_dir: str) -> str:
    """The checkpoint that ``--resume`` goes on from.

    Raises:
        UserError: there is none.
    """
    marker = Path(output_dir) / "last_checkpoint"
    if marker.is_file():
        path = marker.parent / marker.read_text().strip()
        if path.is_file():
            return str(path)
        raise UserError(f"--resume: {marker} names {path.name}, which is not there")
    raise UserError(f"--resume: there is no checkpoint in OUTPUT_DIR {output_dir!r}")


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint into ``{"model": state dict, ...}``; further entries as they were saved.

    mmdetection's "state_dict" becomes "model". Tensors stay on disk until they are used (``mmap``),
    so reading just the config is cheap.

    Raises:
        UserError: the file is damaged, or holds objects that are not on the short list of
            :mod:`project.checkpoint.safe_globals`.
    """
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
    except (RuntimeError, EOFError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a weights file, or is damaged ({reason})") from error
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


def _load_pickle(path: str) -> object:
    # The format of torch < 1.6 is not a zip file and cannot be mapped.
    mmap = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(SAFE_GLOBALS):
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
