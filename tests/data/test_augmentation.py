"""What a config asks for is done to pictures, and to masks the same."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from torchvision.transforms import v2

from project.config import get_project_cfg
from project.data.augmentation import ColorJitter, _adjust_hue, build_augmentations
from project.data.synthetic import render_scene
from project.errors import UserError
from project.seeding import seeded


def names(cfg, is_train: bool = True) -> list[str]:
    return [type(a.augmentation).__name__ for a in build_augmentations(cfg, is_train)]


def changed(cfg, *pairs):
    cfg.merge_from_list(list(pairs))
    return cfg


def test_each_switch_adds_its_augmentation_in_training_only():
    cfg = get_project_cfg()
    assert names(cfg) == ["ResizeShortestEdge", "RandomFlip"]
    changed(cfg, "INPUT.CROP.ENABLED", True, "INPUT.COLOR_JITTER.ENABLED", True)
    assert names(cfg) == ["ColorJitter", "RandomCrop", "ResizeShortestEdge", "RandomFlip"]
    changed(cfg, "INPUT.LSJ.ENABLED", True, "INPUT.RANDOM_FLIP", "none")
    assert names(cfg) == ["ColorJitter", "RandomCrop", "ResizeScale", "RandomCrop"]
    assert names(cfg, is_train=False) == ["ResizeShortestEdge"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("INPUT.RESIZE_BACKEND", "pil"), "choose one of pillow, opencv"),
        (("INPUT.LSJ.ENABLED", True, "INPUT.LSJ.MIN_SCALE", 3.0), "MIN_SCALE <= MAX_SCALE"),
        (("INPUT.LSJ.ENABLED", True, "INPUT.LSJ.SIZE", 0), "SIZE of 1 or more"),
        (("INPUT.COLOR_JITTER.ENABLED", True, "INPUT.COLOR_JITTER.HUE", 0.7), "COLOR_JITTER: hue"),
        (("INPUT.FORMAT", "L"), "choose one of RGB, BGR"),
        (("INPUT.FORMAT", "YUV-BT.601"), "choose one of RGB, BGR"),
    ],
)
def test_values_that_cannot_be_are_refused(pairs, message):
    with pytest.raises(UserError, match=message):
        build_augmentations(changed(get_project_cfg(), *pairs), is_train=True)


def test_large_scale_jitter_scales_as_drawn_and_stays_in_the_square():
    image = render_scene(0, "train", 0).image
    height, width = image.shape[:2]
    keys = ["INPUT.LSJ.ENABLED", True, "INPUT.LSJ.SIZE", 200, "INPUT.RANDOM_FLIP", "none"]
    augmentations = T.AugmentationList(
        build_augmentations(changed(get_project_cfg(), *keys), is_train=True)
    )
    scales, sides, corners = [], [], []
    for number in range(200):
        with seeded(number):
            inputs = T.AugInput(image)
            resize, crop = augmentations(inputs).transforms
        free = resize.new_w - crop.w, resize.new_h - crop.h
        if min(free) > 20:
            corners.append((crop.x0 / free[0], crop.y0 / free[1]))
        scales.append(resize.new_w / width * max(height, width) / 200)
        sides.append(max(inputs.image.shape[:2]))
        assert abs(resize.new_h / height - resize.new_w / width) < 0.5 / min(height, width) * 2
    assert 0.09 < min(scales) < 0.3 and 1.8 < max(scales) < 2.01
    assert max(sides) == 200
    # The crop lies anywhere, not on the diagonal.
    assert len(corners) > 50 and abs(np.corrcoef(np.array(corners).T)[0, 1]) < 0.4


def jittered(image: np.ndarray, number: int, image_format: str = "RGB") -> np.ndarray:
    with seeded(number):
        inputs = T.AugInput(image)
        ColorJitter(0.4, 0.4, 0.4, 0.1, image_format)(inputs)
    return inputs.image


def test_colours_are_drawn_by_the_seed():
    image = render_scene(0, "train", 0).image
    before = image.copy()
    first, second = jittered(image, 0), jittered(image, 1)
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, jittered(image, 0))
    assert not np.array_equal(first, second) and not np.array_equal(first, image)
    assert np.array_equal(image, before)


def test_colours_of_bgr_are_those_of_rgb():
    image = render_scene(0, "train", 0).image
    assert np.array_equal(jittered(image[..., ::-1], 3, "BGR")[..., ::-1], jittered(image, 3))


def test_a_jitter_of_zero_changes_nothing():
    image = torch.randint(0, 256, (9, 7, 3), dtype=torch.uint8).numpy()
    inputs = T.AugInput(image)
    transform = ColorJitter(0.0, 0.0, 0.0, 0.0)(inputs)
    assert np.array_equal(inputs.image, image)
    points, mask = np.array([[1.0, 2.0]]), np.ones((9, 7), dtype=np.uint8)
    assert np.array_equal(transform.apply_coords(points), points)
    assert np.array_equal(transform.apply_segmentation(mask), mask)


@pytest.mark.parametrize("turns", [-0.5, -0.07, 0.0, 0.1, 0.34])
def test_hues_are_nearly_torchvisions(turns):
    picture = torch.from_numpy(render_scene(0, "test", 0).image).permute(2, 0, 1)
    found = _adjust_hue(picture, turns).int()
    expected = v2.functional.adjust_hue(picture, turns).int()
    difference = (found - expected).abs()
    assert difference.float().mean() < 2 and difference.max() < 12
