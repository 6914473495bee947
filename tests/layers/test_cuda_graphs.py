"""Without a GPU it is the plain call; with one, see test_gpu.py."""

import copy
import pickle

import torch

from project.layers.cuda_graphs import GraphedCalls
from project.meta_arch.rcnn import ExtendedRCNN
from tests.helpers import load_small_config


def test_on_a_cpu_nothing_is_kept():
    graphed, module = GraphedCalls(), torch.nn.Linear(2, 2).eval()
    x = torch.rand(3, 2)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(graphed(module, [module], x), module(x))
    assert len(graphed) == 0


def test_copies_begin_without_graphs():
    graphed = GraphedCalls()
    graphed._graphs["key"] = (open,)
    for other in (copy.deepcopy(graphed), pickle.loads(pickle.dumps(graphed))):
        assert len(other) == 0 and len(graphed) == 1
        assert other._last == {}


def test_it_is_the_configs_choice(small_opts):
    for choice in (False, True):
        cfg = load_small_config([*small_opts, "MODEL.CUDA_GRAPHS", str(choice)])
        assert (ExtendedRCNN(cfg).graphed is not None) == choice
