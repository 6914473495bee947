"""Split attention is timm's, forward and backward."""

import copy

import pytest
import timm
import torch
from timm.layers import SplitAttn

from project.layers.split_attention import FastSplitAttn, use_fast_split_attention


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("radix", "groups"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_outputs_and_gradients_are_timms(radix, groups, memory_format):
    torch.manual_seed(0)
    stock = SplitAttn(16, radix=radix, groups=groups, norm_layer=torch.nn.BatchNorm2d).double()
    ours = copy.deepcopy(stock)
    use_fast_split_attention(ours)
    assert type(ours) is FastSplitAttn
    x = torch.randn(3, 16, 7, 9, dtype=torch.float64).to(memory_format=memory_format)
    results = []
    for module in (stock, ours):
        leaf = x.clone().requires_grad_()
        output = module(leaf)
        output.sin().sum().backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        results.append([output.detach(), leaf.grad, *gradients, module.bn0.running_var])
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, atol=1e-10)


def test_a_resnest_has_it_in_every_block_and_keeps_its_names():
    stock = timm.create_model("resnest14d")
    ours = copy.deepcopy(stock).eval()
    use_fast_split_attention(ours)
    assert sum(type(module) is FastSplitAttn for module in ours.modules()) == 4
    assert list(ours.state_dict()) == list(stock.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock.eval()(x), atol=1e-5)
