"""RoIAlign by weighted rows is torchvision's, forward and backward."""

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from hypothesis import given
from hypothesis import strategies as st

from project.layers.roi_align import FastROIAlign, pool_every_level, use_fast_roi_align


def random_inputs(seed: int, num_rois: int = 12):
    generator = torch.Generator().manual_seed(seed)
    number, height, width = (
        int(torch.randint(1, high, (), generator=generator)) for high in (4, 20, 20)
    )
    features = torch.randn((number, 5, height, width), generator=generator)
    centres = torch.rand((num_rois, 2), generator=generator) * torch.tensor([width, height]) * 4
    sizes = (torch.rand((num_rois, 2), generator=generator) ** 3 * 40 - 0.5) * 4  # some negative
    pictures = torch.randint(0, number, (num_rois, 1), generator=generator)
    rois = torch.cat([pictures, centres - sizes / 2, centres + sizes / 2], dim=1)
    rois[0, 3:] = rois[0, 1:3]  # an empty one
    return features, rois


def both(features, rois, output_size, sampling_ratio):
    """Outputs, and gradients of a weighted sum of them, of Detectron2 and of this project."""
    results = []
    for kind in (ROIAlign, FastROIAlign):
        leaf = features.clone().requires_grad_()
        pooled = kind(output_size, 0.25, sampling_ratio, aligned=True)(leaf, rois)
        weights = torch.arange(pooled.numel()).view(pooled.shape).sin()
        (pooled * weights).sum().backward()
        results.append((pooled.detach(), leaf.grad))
    return results


@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 7), (14, 14), (1, 3)]), st.integers(0, 2))
def test_pooled_features_and_gradients_are_torchvisions(seed, output_size, sampling_ratio):
    features, rois = random_inputs(seed)
    (expected, expected_grad), (pooled, grad) = both(features, rois, output_size, sampling_ratio)
    assert pooled.shape == expected.shape
    assert torch.allclose(pooled, expected, atol=1e-5)
    scale = expected_grad.abs().max().clamp(min=1)
    assert torch.allclose(grad / scale, expected_grad / scale, atol=1e-5)


def test_no_rois():
    features, _ = random_inputs(0)
    (expected, _), (pooled, grad) = both(features, torch.zeros((0, 5)), (7, 7), 0)
    assert pooled.shape == expected.shape and not grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])  # with 2 it is torchvision's
def test_half_precision_is_summed_in_full_and_rounds_no_boxes(dtype, sampling_ratio):
    features, rois = random_inputs(3)
    rois[:, 1:] += 0.37  # no number that half precision has
    pooler = FastROIAlign((7, 7), 0.25, sampling_ratio, aligned=True)
    half = features.to(dtype)
    assert torch.equal(pooler(half, rois), pooler(half.float(), rois).to(dtype))


def test_channels_last_features_give_the_same_and_stay_so():
    features, rois = random_inputs(5)
    pooler = FastROIAlign((7, 7), 0.25, 0, aligned=True)
    pooled = pooler(features.to(memory_format=torch.channels_last), rois)
    assert torch.equal(pooled, pooler(features, rois))
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_it_takes_the_place_of_detectron2s_in_a_pooler():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn((2, 4, 64 // s, 96 // s), generator=generator) for s in (1, 2, 4)]
    corners = torch.rand((2, 20, 4), generator=generator) * 250
    boxes = [Boxes(torch.cat([x[:, :2], x[:, :2] + x[:, 2:] + 1], dim=1)) for x in corners]
    stock, ours = (ROIPooler(7, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2") for _ in range(2))
    use_fast_roi_align(ours)
    assert all(type(x) is FastROIAlign for x in ours.level_poolers)
    assert torch.allclose(ours(features, boxes), stock(features, boxes), atol=1e-5)


def test_tracing_and_double_precision_use_torchvisions_operator():
    features, rois = random_inputs(2)
    pooler = FastROIAlign((7, 7), 0.25, 0, aligned=True)
    double = features.double()
    assert pooler(double, rois.double()).dtype == torch.float64
    graph = torch.jit.trace(pooler, (features, rois)).inlined_graph
    assert "torchvision::roi_align" in str(graph)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scales", [(0.25, 0.125, 0.0625, 0.03125), (0.25,)])
def test_pooling_at_every_level_gives_what_pooling_at_its_own_gives(scales, sampling_ratio):
    torch.manual_seed(0)
    pooler = ROIPooler((7, 7), scales, sampling_ratio, "ROIAlignV2")
    features = [torch.randn(2, 3, int(400 * scale), int(480 * scale)) for scale in scales]
    corners = torch.rand(60, 2) * 300
    boxes = torch.cat([corners, corners + torch.rand(60, 1) ** 3 * 400], dim=1)
    boxes[:3] = 0  # what RoIs are filled up with
    pictures = [Boxes(boxes[:25]), Boxes(boxes[25:])]
    pooled = pool_every_level(pooler, features, pictures)
    assert torch.equal(pooled, pooler(features, pictures)) and pooled.any()


def test_a_sample_that_rounding_puts_a_cell_further():
    features = torch.randn((1, 2, 20, 20), generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 3.99999976, 3.99999976, 60, 60]])
    theirs, ours = (
        kind((7, 7), 0.25, 0, aligned=True)(features, rois) for kind in (ROIAlign, FastROIAlign)
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
