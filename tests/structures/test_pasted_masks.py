"""Masks that are pasted late are those that Detectron2 pastes at once."""

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from project.structures import pasted_masks
from project.structures.pasted_masks import PastedMasks


def random_masks(seed: int, number: int = 3, side: int = 14):
    """Blobs of any size, also beyond the picture's border, and the picture's size."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 70, (2,), generator=generator).tolist()
    centres = torch.rand((number, 2), generator=generator) * torch.tensor([width, height])
    sizes = torch.rand((number, 2), generator=generator) ** 2 * 90 + 0.01
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
    if seed % 2:  # as after clipping
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 0.01)
    noise = torch.randn((number, 1, side, side), generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1) * 4
    return smooth.sigmoid()[:, 0], boxes, (height, width)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 14, 28]))
def test_pixels_are_detectron2s(seed, side):
    probabilities, boxes, image_hw = random_masks(seed, side=side)
    masks = PastedMasks(probabilities, boxes, image_hw).tensor
    expected = paste_masks_in_image(probabilities, Boxes(boxes), image_hw)
    assert masks.shape == expected.shape and masks.dtype == torch.bool
    for mask, other, probability, box in zip(masks, expected, probabilities, boxes, strict=True):
        if not torch.equal(mask, other):
            # Only where rounding decides: another threshold within 1e-5 gives the one or the other.
            low, high = (
                paste_masks_in_image(probability[None], box[None], image_hw, threshold)[0]
                for threshold in (0.5 + 1e-5, 0.5 - 1e-5)
            )
            assert not (mask & ~high).any() and not (low & ~mask).any()


@given(st.integers(0, 2**32 - 1))
def test_rle_is_that_of_the_pixels(seed):
    masks = PastedMasks(*random_masks(seed))
    for rle, mask in zip(masks.numpy().to_rle(), masks.tensor, strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert rle["size"] == expected["size"]
        assert rle["counts"].encode() == expected["counts"]


@pytest.mark.parametrize("box", [[0, 0, 9, 6], [-9, -9, 30, 30], [20, 20, 30, 30], [3, 0, 5, 6]])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rle_of_full_columns_and_of_nothing(box, value):
    masks = PastedMasks(torch.full((1, 28, 28), value), torch.tensor([box]).float(), (6, 9))
    expected = coco_mask.encode(np.asfortranarray(masks.tensor[0].numpy().astype(np.uint8)))
    assert masks.numpy().to_rle()[0]["counts"].encode() == expected["counts"]
    assert masks.tensor.any() == (value > 0 and box[0] < 9)


def test_it_stands_for_a_tensor_in_instances():
    probabilities, boxes, image_hw = random_masks(4, number=5)
    masks = PastedMasks(probabilities, boxes, image_hw)
    pixels = masks.tensor
    instances = Instances(image_hw, pred_masks=masks, scores=torch.arange(5))
    chosen = instances[torch.tensor([True, False, True, False, False])].to("cpu")
    assert torch.equal(chosen.pred_masks.tensor, pixels[[0, 2]])
    assert torch.equal(instances[1:3].pred_masks.tensor, pixels[1:3])
    assert torch.equal(masks[2], pixels[2]) and torch.equal(masks[-1], pixels[-1])
    assert len(masks) == 5 and all(torch.equal(a, b) for a, b in zip(masks, pixels, strict=True))
    assert np.array_equal(np.asarray(masks), pixels.numpy())
    assert np.asarray(masks, dtype=np.uint8).dtype == np.uint8
    with pytest.raises(IndexError):
        masks[5]


def test_no_masks():
    masks = PastedMasks(torch.zeros((0, 28, 28)), torch.zeros((0, 4)), (6, 9))
    assert masks.tensor.shape == (0, 6, 9) and masks.numpy().to_rle() == [] and list(masks) == []


def test_half_precision_is_pasted_in_full():
    probabilities, boxes, image_hw = random_masks(8)
    half = probabilities.bfloat16()
    masks = PastedMasks(half, boxes, image_hw).tensor
    assert torch.equal(masks, PastedMasks(half.float(), boxes, image_hw).tensor)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 14, 28]), st.integers(1, 200))
def test_changes_found_for_all_masks_at_once_are_those_of_each(seed, side, columns):
    masks = PastedMasks(*random_masks(seed, number=5, side=side), threshold=0.45)
    expected = masks.numpy().to_rle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pasted_masks, "MAX_COLUMNS", columns)
        changes = masks.find_changes()
    assert len(changes) == 5 and all(x.dtype == np.int64 for x in changes)
    found = PastedMasks(masks.probabilities, masks.boxes, masks.image_hw, 0.45, changes)
    assert found.numpy().to_rle() == expected


def test_changes_stay_with_their_masks():
    probabilities, boxes, image_hw = random_masks(4, number=5)
    plain = PastedMasks(probabilities, boxes, image_hw)
    # Those of other masks tell whether they are used at all.
    changes = PastedMasks(probabilities.flip(0), boxes.flip(0), image_hw).find_changes()
    masks = PastedMasks(probabilities, boxes, image_hw, changes=changes)
    assert torch.equal(masks.tensor, plain.tensor.flip(0))
    kept = torch.tensor([True, False, True, False, False])
    assert torch.equal(masks[kept].to("cpu").tensor, plain.tensor.flip(0)[kept])
    assert torch.equal(masks[3], plain[1]) and torch.equal(masks[1:3].tensor[0], plain[3])
    assert torch.equal(masks[-1], plain[0])
    assert np.array_equal(masks.numpy()[np.array([4, 0])], plain.tensor[[0, 4]])


def test_no_mask_has_no_changes():
    masks = PastedMasks(torch.zeros((0, 28, 28)), torch.zeros((0, 4)), (6, 9))
    assert len(masks.find_changes()) == 0
    outside = PastedMasks(torch.ones((2, 28, 28)), torch.tensor([[20.0, 20, 30, 30]] * 2), (6, 9))
    assert [len(x) for x in outside.find_changes()] == [0, 0]
