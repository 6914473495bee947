"""Objects of one picture in another: pixels, masks and boxes agree."""

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from hypothesis import given
from hypothesis import strategies as st

from project.data.copy_paste import CopyPaste, paste
from project.data.mapper import mask_boxes
from project.seeding import seeded


def instances_of(masks: np.ndarray, first_class: int = 0) -> Instances:
    instances = Instances(masks.shape[1:])
    instances.gt_boxes = Boxes(torch.from_numpy(mask_boxes(masks)).float())
    instances.gt_classes = torch.arange(first_class, first_class + len(masks))
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances


def random_picture(seed: int, first_class: int = 0) -> tuple[torch.Tensor, Instances]:
    """Noise, with objects that are rectangles and do not overlap."""
    random = np.random.default_rng(seed)
    height, width = random.integers(8, 30, 2)
    image = random.integers(0, 256, (3, height, width), dtype=np.uint8)
    owner = np.zeros((height, width), dtype=int)
    for number in range(1, random.integers(0, 4) + 1):
        y, x = random.integers(height), random.integers(width)
        owner[y : y + random.integers(1, 12), x : x + random.integers(1, 12)] = number
    masks = np.array([owner == n for n in np.unique(owner[owner > 0])], dtype=bool)
    return torch.from_numpy(image), instances_of(masks.reshape(-1, height, width), first_class)


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, SEEDS, st.integers(-35, 35), st.integers(-35, 35))
def test_every_pixel_is_of_the_picture_or_of_a_pasted_object(seed, other, top, left):
    image, instances = random_picture(seed)
    source, objects = random_picture(other, first_class=100)
    before = image.clone(), instances.gt_masks.tensor.clone(), objects.gt_masks.tensor.clone()
    result, combined = paste(image, instances, source, objects, top, left)

    masks = combined.gt_masks.tensor
    pasted = masks[combined.gt_classes >= 100].any(dim=0)
    assert result.shape == image.shape and combined.image_size == tuple(image.shape[1:])
    assert torch.equal(result[:, ~pasted], image[:, ~pasted])
    rows, columns = torch.nonzero(pasted, as_tuple=True)
    assert torch.equal(result[:, rows, columns], source[:, rows - top, columns - left])
    visible = sum(
        (0 <= y + top < image.shape[1]) and (0 <= x + left < image.shape[2])
        for y, x in torch.nonzero(objects.gt_masks.tensor.any(dim=0)).tolist()
    )
    assert pasted.sum() == visible

    assert masks.sum(dim=0).max() <= 1 if len(masks) else True  # nothing lies in two objects
    assert masks.flatten(1).any(dim=1).all()
    assert np.array_equal(mask_boxes(masks.numpy()), combined.gt_boxes.tensor.numpy())
    for index, mask in zip(combined.gt_classes.tolist(), masks, strict=True):
        if index < 100:
            assert torch.equal(mask, instances.gt_masks.tensor[index] & ~pasted)
    assert torch.equal(image, before[0])
    assert torch.equal(instances.gt_masks.tensor, before[1])
    assert torch.equal(objects.gt_masks.tensor, before[2])


def test_boxes_of_what_is_not_covered_stay_as_annotated():
    masks = np.zeros((2, 10, 20), dtype=bool)
    masks[0, 2:5, 2:5] = masks[1, 2:8, 12:18] = True
    instances = instances_of(masks)
    instances.gt_boxes = Boxes(torch.tensor([[1.5, 1.5, 5.5, 5.5], [11.5, 1.5, 18.5, 8.5]]))
    covering = np.zeros((1, 10, 20), dtype=bool)
    covering[0, :, 15:] = True
    image = torch.zeros((3, 10, 20), dtype=torch.uint8)
    _, combined = paste(image, instances, image + 1, instances_of(covering, 100), 0, 0)
    expected = [[1.5, 1.5, 5.5, 5.5], [12, 2, 15, 8], [15, 0, 20, 10]]
    assert combined.gt_boxes.tensor.tolist() == expected


def pictures() -> list[dict]:
    result = []
    for number in range(6):
        image, instances = random_picture(number, first_class=10 * number)
        result.append({"image": image, "instances": instances, "image_id": number})
    return result


def test_it_pastes_as_often_as_asked_and_keeps_the_first_pictures_identity():
    records = pictures()
    counts = {}
    for probability in (0.0, 0.5, 1.0):
        mapper, changed = CopyPaste(lambda record: record, records, probability), 0
        for number in range(300):
            with seeded(number):
                result = mapper(records[0])
            assert result["image_id"] == 0
            changed += result["instances"] is not records[0]["instances"]
        counts[probability] = changed
    empty = sum(len(record["instances"]) == 0 for record in records)
    assert counts[0.0] == 0 and 0 < counts[0.5] < counts[1.0]
    assert abs(counts[1.0] / 300 - (1 - empty / 6)) < 0.1


def test_objects_come_from_all_pictures_and_the_smaller_lies_within_the_larger():
    records = pictures()
    mapper, sources = CopyPaste(lambda record: record, records, 1.0), set()
    for number in range(200):
        with seeded(number):
            instances = mapper(records[1])["instances"]
        sources |= {index // 10 for index in instances.gt_classes.tolist()}
    assert sources == {i for i, record in enumerate(records) if len(record["instances"])}
