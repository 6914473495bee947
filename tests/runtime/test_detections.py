"""Detections are chosen together, with everything that belongs to them."""

import numpy as np
import pytest

from project.runtime.detections import Detections
from project.runtime.lazy_masks import LazyMasks


def make(lazy: bool = True) -> Detections:
    rng = np.random.RandomState(0)
    corners = rng.rand(5, 2) * 20
    boxes = np.concatenate([corners, corners + 3 + rng.rand(5, 2) * 10], axis=1)
    masks = LazyMasks(rng.rand(5, 28, 28), boxes, (30, 40))
    return Detections(
        boxes.astype(np.float32),
        np.linspace(1, 0.2, 5).astype(np.float32),
        np.array([3, 1, 4, 1, 5]),
        ("c", "a", "d", "a", "e"),
        masks if lazy else np.asarray(masks),
        (30, 40),
    )


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    "choice", [slice(1, 4), [0, 3], np.array([False, True, True, False, True])]
)
def test_a_choice_keeps_together_what_belongs_together(choice, lazy):
    whole = make(lazy)
    chosen = whole[choice]
    indices = np.arange(5)[np.asarray(choice) if isinstance(choice, list) else choice]
    assert len(chosen) == len(indices) and chosen.image_hw == (30, 40)
    for new, old in enumerate(indices):
        assert np.array_equal(chosen.boxes_xyxy[new], whole.boxes_xyxy[old])
        assert chosen.scores[new] == whole.scores[old]
        assert chosen.class_names[new] == whole.class_names[old]
        assert np.array_equal(chosen.masks[new], np.asarray(whole.masks)[old])
        assert np.array_equal(chosen.mask(new), whole.mask(old))


def test_one_by_one_and_none():
    whole = make()
    assert [one.class_names for one in whole] == [(name,) for name in "cadae"]
    assert len(whole[[]]) == 0 and np.asarray(whole[[]].masks).shape == (0, 30, 40)
    with pytest.raises(TypeError, match="slice or an array"):
        whole[2]


def test_without_masks_the_box_stands_for_the_mask():
    whole = make()
    plain = Detections(
        np.array([[2, 3, 10, 9]], np.float32), np.ones(1), np.ones(1, int), ("a",), None, (30, 40)
    )
    assert plain[:1].masks is None
    assert plain.mask(0).sum() == 8 * 6 and plain.mask(0)[3, 2] and not plain.mask(0)[9, 2]
    assert whole.mask(0).shape == plain.mask(0).shape
