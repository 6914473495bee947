"""The generator: the same everywhere, exact masks, the layout that the rest reads."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from project.data.segmentation import (
    compressed_rle,
    decode_segmentation,
    polygons,
    uncompressed_rle,
)
from project.data.synthetic import CLASS_NAMES, generate_dataset, render_scene
from project.data.synthetic.dataset import annotation_records, image_record
from project.data.synthetic.scene import MAX_SIZE, MIN_SIZE
from project.data.synthetic.shapes import rasterize
from project.data.synthetic.textures import BACKGROUNDS
from project.errors import UserError

SCENES = [(split, index) for split in ("train", "test") for index in range(60)]


@pytest.fixture(scope="module")
def scenes():
    return {key: render_scene(3, *key) for key in SCENES}


def digest(scenes) -> str:
    total = hashlib.sha256()
    for (split, index), scene in scenes.items():
        total.update(scene.image.tobytes())
        image = image_record(scene, split, index)
        records = [image, annotation_records(scene, image["id"])]
        total.update(json.dumps(records).encode())
    return total.hexdigest()


def test_the_same_pixels_and_json_on_every_machine(scenes):
    assert digest(scenes) == GOLDEN


def test_a_picture_depends_on_seed_split_and_index_only(scenes):
    again = render_scene(3, "train", 5)
    assert np.array_equal(again.image, scenes["train", 5].image)
    for other in (render_scene(4, "train", 5), scenes["test", 5], scenes["train", 6]):
        assert other.image.shape != again.image.shape or not np.array_equal(
            other.image, again.image
        )


def test_segmentations_decode_to_the_rendered_masks(scenes):
    kinds = set()
    for scene in scenes.values():
        height, width = scene.image.shape[:2]
        for record, mask in zip(annotation_records(scene, 77), scene.masks, strict=True):
            outline = record["segmentation"]
            kinds.add("polygons" if isinstance(outline, list) else type(outline["counts"]))
            assert np.array_equal(decode_segmentation(outline, height, width), mask)
            assert record["area"] == mask.sum()
            x, y, w, h = record["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert mask[y].any() and mask[y + h - 1].any()
            assert mask[:, x].any() and mask[:, x + w - 1].any()
    assert kinds == {"polygons", list, str}  # RLE as a list of counts and as a string


def test_masks_of_a_picture_do_not_overlap_and_all_classes_appear(scenes):
    seen = set()
    for scene in scenes.values():
        assert scene.masks.sum(axis=0).max(initial=0) <= 1
        assert all(mask.any() for mask in scene.masks)
        seen |= set(scene.category_ids.tolist())
    assert seen == set(range(1, 21)) and len(CLASS_NAMES) == 20


def test_sizes_occlusion_and_pictures_without_objects(scenes):
    longest = [
        max(np.ptp(np.nonzero(mask)[0]) + 1, np.ptp(np.nonzero(mask)[1]) + 1)
        for scene in scenes.values()
        for mask in scene.masks
    ]
    assert MIN_SIZE - 10 <= min(longest) < 30 and 150 < max(longest) <= MAX_SIZE + 2
    counts = [len(scene.masks) for scene in scenes.values()]
    assert 0 in counts and max(counts) == 5


def test_test_pictures_have_other_backgrounds(scenes):
    used = {
        split: {s.background for (k, _), s in scenes.items() if k == split} for split in BACKGROUNDS
    }
    assert used["train"] == set(BACKGROUNDS["train"]) and used["test"] == set(BACKGROUNDS["test"])
    assert not used["train"] & used["test"]


def test_layout_and_ids(generated_root):
    train = json.loads((generated_root / "pascal_train.json").read_text())
    test = json.loads((generated_root / "test.json").read_text())
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    assert set(test) == {"images", "categories"} and test["images"] == truth["images"]
    assert [c["id"] for c in train["categories"]] == list(range(1, 21))
    for content, folder in ((train, "train_images"), (truth, "test_images")):
        ids = [image["id"] for image in content["images"]]
        assert len(set(ids)) == len(ids) and ids != sorted(ids)
        assert max(ids) - min(ids) >= len(ids)  # gaps
        numbers = [a["id"] for a in content["annotations"]]
        assert len(set(numbers)) == len(numbers) and min(numbers) > 0
        assert {a["image_id"] for a in content["annotations"]} <= set(ids)
        for image in content["images"]:
            picture = cv2.imread(str(generated_root / folder / image["file_name"]))
            assert picture.shape[:2] == (image["height"], image["width"])
    assert not {i["id"] for i in train["images"]} & {i["id"] for i in test["images"]}


def test_adding_pictures_changes_none(tmp_path):
    generate_dataset(tmp_path / "a", num_train=2, num_test=1)
    generate_dataset(tmp_path / "b", num_train=3, num_test=1)
    a, b = (json.loads((tmp_path / k / "pascal_train.json").read_text()) for k in "ab")
    assert a["images"] == b["images"][:2]
    assert a["annotations"] == b["annotations"][: len(a["annotations"])]
    name = a["images"][1]["file_name"]
    first, second = ((tmp_path / k / "train_images" / name).read_bytes() for k in "ab")
    assert first == second


def test_another_data_set_is_not_overwritten(tmp_path):
    generate_dataset(tmp_path, num_train=2, num_test=1)
    before = (tmp_path / "pascal_train.json").read_bytes()
    generate_dataset(tmp_path, num_train=2, num_test=1)  # the same one: nothing to do
    with pytest.raises(UserError, match="another data set"):
        generate_dataset(tmp_path, num_train=3, num_test=1)
    assert (tmp_path / "pascal_train.json").read_bytes() == before
    generate_dataset(tmp_path, num_train=3, num_test=1, overwrite=True)
    assert len(json.loads((tmp_path / "pascal_train.json").read_text())["images"]) == 3


def test_a_data_set_that_lost_a_picture_or_its_marker_is_not_taken_for_complete(tmp_path):
    generate_dataset(tmp_path, num_train=2, num_test=1)
    (tmp_path / "train_images/train_000001.jpg").unlink()
    with pytest.raises(UserError, match="another data set"):
        generate_dataset(tmp_path, num_train=2, num_test=1)
    generate_dataset(tmp_path, num_train=2, num_test=1, overwrite=True)
    assert (tmp_path / "train_images/train_000001.jpg").is_file()
    (tmp_path / "pascal_train.json").unlink()
    with pytest.raises(UserError, match="another data set"):
        generate_dataset(tmp_path, num_train=2, num_test=1)
    generate_dataset(tmp_path, num_train=2, num_test=1, overwrite=True)
    (tmp_path / "generator.json").write_text("{")
    with pytest.raises(UserError, match="another data set"):
        generate_dataset(tmp_path, num_train=2, num_test=1)


def test_arguments_out_of_range_write_nothing(tmp_path):
    for arguments in ({"seed": -1}, {"num_train": -1}, {"num_test": -1}):
        with pytest.raises(UserError, match="choose"):
            generate_dataset(tmp_path / "new", **{"num_train": 1, "num_test": 1, **arguments})
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        generate_dataset(tmp_path / "file", num_train=1, num_test=1)


@pytest.mark.parametrize("seed", range(20))
def test_any_mask_round_trips_through_every_kind_of_segmentation(seed):
    mask = np.random.RandomState(seed).random_sample((7, 9)) < seed / 20
    mask[3, 4] = True
    assert np.array_equal(decode_segmentation(uncompressed_rle(mask), 7, 9), mask)
    assert np.array_equal(decode_segmentation(compressed_rle(mask), 7, 9), mask)
    outline = polygons(mask)
    if outline is not None:
        assert np.array_equal(decode_segmentation(outline, 7, 9), mask)


def test_polygons_leave_masks_with_holes_to_rle():
    mask = np.ones((5, 5), dtype=bool)
    assert polygons(mask) == [[0, 0, 5, 0, 5, 5, 0, 5]]
    mask[2, 2] = False
    assert polygons(mask) is None
    assert polygons(np.zeros((5, 5), dtype=bool)) is None


def test_rasterize_fills_by_pixel_centres_and_leaves_holes():
    square = np.array([(0.0, 0.0), (4, 0), (4, 4), (0, 4)])
    assert rasterize([square], 4, 6).sum() == 16
    assert rasterize([square - 2], 4, 6).sum() == 4  # what leaves the canvas is cut off
    hole = rasterize([square, square / 2 + 1], 4, 6)
    assert hole.sum() == 12 and not hole[1:3, 1:3].any()


GOLDEN = "1ec36388d2062a7fce8698b38f4760c952a3e049c81d26e66f75e06a58fdf803"
