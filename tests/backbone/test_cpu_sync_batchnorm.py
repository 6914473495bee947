"""Synchronised BatchNorm on CPUs; with several processes: tests/engine/test_processes.py."""

import pytest
import torch
from torch import distributed, nn

from project.backbone.cpu_sync_batchnorm import use_cpu_sync_batchnorm


@pytest.fixture
def a_group_of_one(tmp_path):
    distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_process_normalises_as_batchnorm_does(a_group_of_one, dtype):
    torch.manual_seed(0)
    x = torch.randn(4, 8, 5, 6).to(dtype)
    ours, expected = nn.ModuleList([nn.SyncBatchNorm(8)]), nn.BatchNorm2d(8)
    use_cpu_sync_batchnorm(ours)
    (norm,) = ours
    found, like = norm(x), expected(x.float()).to(dtype)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), like.float(), atol=1e-5, rtol=0.01)
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(norm, name), getattr(expected, name), atol=1e-5)
