"""Hooks and devices."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventWriter
from torch import nn

from project.config import get_project_cfg, load_config
from project.devices import has_kernels, resolve_devices
from project.engine import Trainer
from project.engine.hooks import TimedWriter
from project.errors import UserError
from tests.helpers import FULL_CONFIG, SMALL_CONFIG


class CountingWriter(EventWriter):
    def __init__(self):
        self.iterations = []
        self.trainer = None

    def write(self):
        self.iterations.append(self.trainer.iter)


@pytest.mark.parametrize(
    ("step_seconds", "expected"), [(0.0, [19, 39, 44]), (3.0, [3, 7, 11, 15, 19, 22])]
)
def test_a_line_comes_every_20_iterations_or_when_it_is_time(monkeypatch, step_seconds, expected):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("project.engine.hooks.time.monotonic", lambda: clock.now)
    writer = CountingWriter()
    hook = TimedWriter([writer], period=20, seconds=10.0)
    max_iter = 45 if step_seconds == 0 else 23
    hook.trainer = writer.trainer = SimpleNamespace(iter=0, max_iter=max_iter)
    hook.before_train()
    for hook.trainer.iter in range(max_iter):
        clock.now += step_seconds
        hook.after_step()
    assert writer.iterations == expected


def have_gpus(monkeypatch, number: int, capability: tuple[int, int] = (8, 9)) -> list[int]:
    """Let torch see some; returns which were made the current one."""
    chosen = []
    cuda = {
        "is_available": lambda: number > 0,
        "device_count": lambda: number,
        "set_device": chosen.append,
        "get_device_name": lambda index: "a GPU",
        "get_device_capability": lambda index: capability,
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_86", "sm_90"],
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return chosen


@pytest.mark.parametrize(
    ("gpus", "asked", "device", "given", "expected"),
    [
        (2, None, "cuda", False, (1, "cuda")),
        (2, 2, "cuda", False, (2, "cuda")),
        (2, None, "cuda:1", True, (1, "cuda:1")),
        (0, None, "cuda", False, (1, "cpu")),
        (2, 0, "cuda", False, (1, "cpu")),
        (2, None, "cpu", True, (1, "cpu")),
        (2, 1, "cpu", True, (1, "cpu")),
        (0, 2, "cpu", True, (2, "cpu")),
    ],
)
def test_the_devices_of_a_run(monkeypatch, gpus, asked, device, given, expected):
    have_gpus(monkeypatch, gpus)
    cfg = get_project_cfg()
    cfg.MODEL.DEVICE = device
    assert (resolve_devices(cfg, asked, given), cfg.MODEL.DEVICE) == expected


@pytest.mark.parametrize(
    ("gpus", "asked", "given", "message"),
    [
        (1, 2, False, "sees 1 that it can use; type --num-gpus 1"),
        (0, 1, False, "sees 0 that it can use; type MODEL.DEVICE cpu"),
        (0, None, True, "sees 0"),
    ],
)
def test_more_gpus_than_there_are(monkeypatch, gpus, asked, given, message):
    have_gpus(monkeypatch, gpus)
    with pytest.raises(UserError, match=message):
        resolve_devices(get_project_cfg(), asked, given)


@pytest.mark.parametrize(
    ("device", "asked", "message"),
    [("cuda:1", 2, "cuda:1 is one GPU, and --num-gpus asks for 2"), ("cuda:2", None, "sees 2 GPU")],
)
def test_a_gpu_that_cannot_be_chosen(monkeypatch, device, asked, message):
    have_gpus(monkeypatch, 2)
    cfg = get_project_cfg()
    cfg.MODEL.DEVICE = device
    with pytest.raises(UserError, match=message):
        resolve_devices(cfg, asked, True)


def test_the_gpu_that_is_chosen_is_torchs_current_one(monkeypatch):
    """Whose memory and whose work is asked for."""
    chosen = have_gpus(monkeypatch, 2)
    cfg = get_project_cfg()
    cfg.MODEL.DEVICE = "cuda:1"
    resolve_devices(cfg, None, True)
    assert chosen == [1]


def test_a_gpu_that_torch_was_not_compiled_for(monkeypatch):
    have_gpus(monkeypatch, 1, capability=(7, 0))
    with pytest.raises(UserError, match="was not compiled for GPU 0, a GPU"):
        resolve_devices(get_project_cfg(), None, False)


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 9), ["sm_75", "sm_86"], True),  # machine code for an earlier one of the same kind
        ((8, 0), ["sm_75", "sm_86"], False),
        ((12, 0), ["sm_90", "sm_90a"], False),
        ((12, 1), ["sm_100", "sm_120"], True),
        ((12, 0), ["sm_80", "compute_90"], True),  # PTX
        ((8, 9), ["compute_90"], False),
        ((9, 4), ["gfx90a", "gfx942"], True),  # AMD's, of which nothing is known
    ],
)
def test_which_gpus_have_kernels(capability, architectures, expected):
    assert has_kernels(capability, architectures) == expected


def test_every_parameter_of_the_original_recipe_decays():
    """mmdetection's SGD decays norms and biases too."""
    cfg = load_config(str(FULL_CONFIG), default_config=str(FULL_CONFIG))
    optimizer = Trainer.build_optimizer(cfg, nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize("clips", [False, True])
def test_the_optimizer_takes_detectron2s_steps(clips):
    cfg = load_config(str(SMALL_CONFIG), ["SOLVER.CLIP_GRADIENTS.ENABLED", str(clips)])
    weights = []
    for build in (build_optimizer, Trainer.build_optimizer):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        optimizer = build(cfg, model)
        for _ in range(5):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter) * 3
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert optimizer.param_groups[0]["fused"]
    assert torch.allclose(*weights, atol=1e-6)
