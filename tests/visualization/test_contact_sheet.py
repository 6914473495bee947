"""Pictures for people: drawn where they should be, and nowhere else."""

import json

import cv2
import numpy as np
import pytest

from project.errors import UserError
from project.visualization.contact_sheet import arrange, draw_predictions
from project.visualization.instances import draw_instances


def test_an_instance_changes_its_pixels_and_not_those_of_its_hole():
    image = np.full((120, 160, 3), 128, dtype=np.uint8)
    mask = np.zeros((120, 160), dtype=bool)
    mask[40:100, 60:140] = True
    mask[60:80, 90:110] = False
    drawn = draw_instances(image, mask[None], np.array([[60.0, 40, 140, 100]]), ["ring"], [3])
    assert drawn.shape == image.shape
    changed = (drawn.astype(int) != 128).any(axis=-1)
    assert changed[84:96, 64:136].all()  # the mask, its border left out
    assert not changed[64:76, 94:106].any()  # the hole
    assert not changed[:, :50].any()


def test_nothing_to_draw_leaves_the_picture_as_it_is():
    image = np.random.RandomState(0).randint(0, 256, (64, 80, 3)).astype(np.uint8)
    nothing = np.zeros((0, 64, 80), dtype=bool)
    assert np.array_equal(draw_instances(image, nothing, np.zeros((0, 4)), [], []), image)


def test_a_grid_holds_every_picture_once():
    pictures = [np.full((10, 10 + i, 3), i, dtype=np.uint8) for i in range(5)]
    sheet = arrange(pictures, columns=2)
    assert sheet.shape[0] == 3 * 16
    for index, picture in enumerate(pictures):
        assert (sheet == index).all(axis=-1).sum() == picture.shape[0] * picture.shape[1]


def test_a_sheet_is_written_with_and_without_ground_truth(generated_root, tmp_path):
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    detections = [{**a, "score": 0.9} for a in truth["annotations"]]
    sizes = []
    for content in (truth, json.loads((generated_root / "test.json").read_text())):
        path = tmp_path / "sheets/predictions.png"
        draw_predictions(content, generated_root / "test_images", detections, path, num_images=4)
        sizes.append(cv2.imread(str(path)).shape)
    assert sizes[0][1] > 1.5 * sizes[1][1]


def test_a_missing_picture_is_one_line(tmp_path):
    content = {"images": [{"id": 1, "file_name": "gone.jpg", "height": 4, "width": 4}]}
    with pytest.raises(UserError, match=r"gone\.jpg"):
        draw_predictions(content, tmp_path, [], tmp_path / "a.png")
    with pytest.raises(UserError, match="no pictures"):
        draw_predictions({"images": []}, tmp_path, [], tmp_path / "a.png")


def test_an_rle_of_another_size_is_one_line(generated_root, tmp_path):
    content = json.loads((generated_root / "test.json").read_text())
    for counts in ([100], "T3"):
        segmentation = {"size": [10, 10], "counts": counts}
        detection = {"image_id": content["images"][0]["id"], "category_id": 1, "score": 0.9}
        detection |= {"bbox": [0, 0, 5, 5], "segmentation": segmentation}
        with pytest.raises(UserError, match="10 x 10"):
            draw_predictions(
                content, generated_root / "test_images", [detection], tmp_path / "a.png"
            )
