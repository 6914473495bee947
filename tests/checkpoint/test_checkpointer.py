"""What a run leaves on disk: whole files, and a link to the newest."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from project.checkpoint import writing
from project.checkpoint.checkpointer import Checkpointer, point_to
from project.checkpoint.reading import newest_checkpoint, read_checkpoint


def test_latest_points_to_the_newest_and_carries_the_metadata(tmp_path):
    checkpointer = Checkpointer(nn.Linear(2, 2), str(tmp_path), metadata={"config": "A: 1\n"})
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_0000002", iteration=2)
    latest = tmp_path / "latest.pth"
    assert latest.is_symlink() and os.readlink(latest) == "model_0000002.pth"
    content = read_checkpoint(str(latest))
    assert content["iteration"] == 2 and content["config"] == "A: 1\n"
    assert Path(newest_checkpoint(str(tmp_path))) == tmp_path / "model_0000002.pth"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_save_that_fails_leaves_the_old_checkpoint_in_place(tmp_path, monkeypatch):
    checkpointer = Checkpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_final")
    whole = (tmp_path / "model_final.pth").read_bytes()

    def half(data, file):
        file.write(whole[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(writing.torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        checkpointer.save("model_final")
    assert (tmp_path / "model_final.pth").read_bytes() == whole
    assert read_checkpoint(str(tmp_path / "latest.pth"))["model"]


def test_the_link_is_a_copy_where_links_are_not_possible(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"a")

    def refuse(*args, **kwargs):
        raise OSError("links are not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_to(tmp_path / "latest.pth", "a.pth")
    assert not (tmp_path / "latest.pth").is_symlink()
    assert (tmp_path / "latest.pth").read_bytes() == b"a"


def test_saved_weights_load_again(tmp_path):
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    Checkpointer(first, str(tmp_path)).save("model_final")
    # Detectron2's names are told from others by their first part.
    state = {f"roi_heads.{k}": v for k, v in first.state_dict().items()}
    torch.save({"model": state}, tmp_path / "b.pth")
    holder = nn.Module()
    holder.roi_heads = second
    Checkpointer(holder, str(tmp_path)).load("b.pth")
    assert torch.equal(first.weight, second.weight)
