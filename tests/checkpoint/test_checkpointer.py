"""What a run leaves on disk: whole files, and a link to the newest."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from project.checkpoint import writing
from project.checkpoint.checkpointer import Checkpointer, point_to, remove_old_checkpoints
from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from project.errors import UserError


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
    with pytest.raises(UserError, match="No space"):
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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [(2, 0, [30, 40]), (1, 20, [20, 40]), (0, 0, [10, 20, 30, 40]), (9, 0, [10, 20, 30, 40])],
)
def test_old_checkpoints_go_as_the_config_says(tmp_path, last, every, kept):
    for done in (10, 20, 30, 40):
        Checkpointer(nn.Linear(1, 1), str(tmp_path)).save(f"model_{done - 1:07d}")
    for name in ("model_final.pth", "model_mine.pth", "best.pth"):
        (tmp_path / name).touch()
    remove_old_checkpoints(tmp_path, last=last, every=every)
    others = {"best.pth", "latest.pth", "model_final.pth", "model_mine.pth"}
    assert set(names(tmp_path)) == {f"model_{done - 1:07d}.pth" for done in kept} | others


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(torch.full((4,), 7.0).numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("newest", ["model_0000019", "model_final"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, caplog, damage, newest
):
    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, 7.0)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save(newest, iteration=19)
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / f"{newest}.pth")
    damage(tmp_path / f"{newest}.pth")
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / "model_0000009.pth")
    assert f"{newest}.pth is damaged" in caplog.text
    damage(tmp_path / "model_0000009.pth")
    with pytest.raises(UserError, match="no checkpoint that is not damaged"):
        newest_checkpoint(str(tmp_path))


def test_a_run_that_was_made_longer_has_newer_ones_than_model_final(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save("model_final", iteration=14)
    assert newest_checkpoint(str(tmp_path)).endswith("model_final.pth")
    checkpointer.save("model_0000019", iteration=19)
    assert newest_checkpoint(str(tmp_path)).endswith("model_0000019.pth")


def test_best_holds_the_model_only_and_does_not_move_latest(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path), metadata={"config": "A: 1\n"})
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save_best(value=3.5, metric="segm/AP")
    content = read_checkpoint(str(tmp_path / "best.pth"))
    assert set(content) == {"model", "config", "value", "metric"}
    assert os.readlink(tmp_path / "latest.pth") == "model_0000001.pth"
