"""Without a GPU it is the plain call; with one, see test_gpu.py."""

import copy
import pickle

import torch
from torch import nn

from project.layers.cuda_graphs import GraphedCalls, addresses_of
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


def test_addresses_change_where_weights_lie_elsewhere():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(nn.BatchNorm2d(2), None))
    tensors = [*module.parameters(), *module.buffers()]
    addresses = addresses_of([module])
    assert sorted(addresses) == sorted(tensor.data_ptr() for tensor in tensors)
    with torch.no_grad():
        module[0].weight.mul_(2)
    assert addresses_of([module]) == addresses
    module[1][0].running_mean = torch.zeros(2)
    moved = addresses_of([module])
    module[0] = nn.Conv2d(2, 2, 1)
    assert len({addresses, moved, addresses_of([module])}) == 3


def test_it_is_the_configs_choice(small_opts):
    for choice in (False, True):
        cfg = load_small_config([*small_opts, "MODEL.CUDA_GRAPHS", str(choice)])
        assert (ExtendedRCNN(cfg).graphed is not None) == choice
