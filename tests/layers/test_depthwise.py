"""Large depthwise convolutions train in float32 under bfloat16 autocast, and are else as before."""

import copy

import pytest
import timm
import torch

from project.layers.depthwise import use_fast_depthwise


@pytest.fixture
def bodies() -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    stock = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    ours = copy.deepcopy(stock)
    use_fast_depthwise(ours)
    return stock, ours


def test_names_stay_and_nothing_changes_without_autocast(bodies):
    stock, ours = bodies
    assert list(ours.state_dict()) == list(stock.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for expected, found in zip(stock(x), ours(x), strict=True):
        assert torch.equal(found, expected)


def test_every_large_depthwise_convolution_and_no_other_is_changed(bodies):
    changed = {
        name
        for (name, before), after in zip(
            bodies[0].named_modules(), bodies[1].modules(), strict=True
        )
        if type(before) is not type(after)
    }
    large = {
        name
        for name, module in bodies[0].named_modules()
        if isinstance(module, torch.nn.Conv2d)
        and module.kernel_size == (5, 5)
        and module.groups > 1
    }
    assert changed == large
    assert large


def test_the_first_trained_layer_behind_a_frozen_stem_is_fast_too(bodies):
    conv = next(m for m in bodies[1].modules() if getattr(m, "kernel_size", None) == (5, 5))
    x = torch.randn(1, conv.in_channels, 9, 11)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
        with torch.no_grad():
            left_alone = conv(x)
    assert torch.equal(found, conv(x).bfloat16()) and not torch.equal(found, left_alone)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_in_mixed_precision_are_those_of_float32(bodies, stride):
    conv = next(
        module
        for module in bodies[1].modules()
        if isinstance(module, torch.nn.Conv2d)
        and module.kernel_size == (5, 5)
        and module.stride == (stride, stride)
    )
    # Values that bfloat16 holds exactly, so that only what is computed with them may differ.
    x = torch.randn(2, conv.in_channels, 9, 11).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
    assert output.dtype == torch.bfloat16
    expected = conv(x.detach().float())
    assert torch.equal(output, expected.bfloat16())

    upstream = torch.randn_like(output)
    output.backward(upstream)
    found, conv.weight.grad = conv.weight.grad, None
    expected.backward(upstream.float())
    # In bfloat16 the difference is some 1e-3.
    torch.testing.assert_close(found, conv.weight.grad, rtol=1e-5, atol=1e-5)
    assert x.grad.dtype == torch.bfloat16


def test_inference_in_mixed_precision_is_left_alone(bodies):
    stock, ours = bodies
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for expected, found in zip(stock(x), ours(x), strict=True):
            assert torch.equal(found, expected)
