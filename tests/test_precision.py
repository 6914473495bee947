"""In which dtype a model trains: what the machine computes with, unless a config says it."""

import pytest
import torch

from project.config import get_project_cfg
from project.errors import UserError
from project.precision import training_dtype


def config(device: str, *opts):
    cfg = get_project_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", device, *opts])
    return cfg


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
        ("cuda", True, torch.bfloat16),
        ("cuda:1", False, torch.float16),
    ],
)
def test_auto_is_the_fastest_that_the_machine_computes_with(
    monkeypatch, device, has_bfloat16, expected
):
    monkeypatch.setattr("project.precision.computes_in_bfloat16", lambda device: has_bfloat16)
    assert training_dtype(config(device, "SOLVER.AMP.ENABLED", "True")) == expected
    named = ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16")
    assert training_dtype(config(device, *named)) == torch.float16
    assert training_dtype(config(device)) == torch.float32  # SOLVER.AMP.ENABLED is off


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match=r"AMP.DTYPE is 'half'; choose one of auto, float32"):
        training_dtype(config("cpu", "SOLVER.AMP.DTYPE", "half"))
