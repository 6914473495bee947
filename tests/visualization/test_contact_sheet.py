"""Pictures for people: drawn where they should be, and nowhere else."""

import json
import os
import tracemalloc

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from project.data.loading import build_train_loader, training_records
from project.data.mapper import InstanceMapper
from project.data.segmentation import compressed_rle
from project.errors import UserError
from project.files import check_picture_file
from project.runtime.detections import Detections
from project.runtime.lazy_masks import LazyMasks
from project.visualization.contact_sheet import (
    _draw,
    arrange,
    draw_predictions,
    draw_training_pictures,
    prediction_sheet,
)
from project.visualization.instances import add_title, draw_detections, draw_instances
from project.visualization.writing import write_picture
from scripts import draw_predictions as program
from scripts import show_dataset
from tests.helpers import SMALL_CONFIG, load_small_config


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


def test_a_picture_of_any_shape_is_drawn(tmp_path):
    cv2.imwrite(str(tmp_path / "long.png"), np.full((8, 4000, 3), 90, dtype=np.uint8))
    image = {"id": 1, "file_name": "long.png", "height": 8, "width": 4000}
    found = {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [0, 0, 3000, 8]}
    sheet = prediction_sheet({"images": [image]}, tmp_path, [found])
    assert sheet.shape[1] >= 360 and (sheet != 255).any()


def test_annotations_may_have_a_score_of_any_kind(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((90, 90, 3), 90, dtype=np.uint8))
    image = {"id": 1, "file_name": "a.png", "height": 90, "width": 90}
    sheets = []
    for keys in ({}, {"score": None}, {"score": "0.9"}, {"score": 0.9}):
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 30, 30], **keys}
        content = {"images": [image], "annotations": [annotation]}
        sheets.append(prediction_sheet(content, tmp_path, []))
    assert all(np.array_equal(sheet, sheets[0]) for sheet in sheets)


def test_masks_are_held_one_at_a_time():
    side, number = 500, 40
    image = np.zeros((side, side, 3), dtype=np.uint8)
    probabilities = np.ones((number, 28, 28), dtype=np.float32)
    boxes = np.tile(np.float32([[10, 10, 60, 60]]), (number, 1))
    masks = LazyMasks(probabilities, boxes, (side, side))
    scores, ids = np.ones(number, np.float32), np.ones(number, np.int64)
    found = Detections(boxes, scores, ids, ("a",) * number, masks, (side, side))
    rle = compressed_rle(masks[0])
    items = [{"category_id": 1, "bbox": [10, 10, 50, 50], "segmentation": rle}] * number
    draw_detections(image, found)  # once, for the font
    for draw in (
        lambda: draw_detections(image, found),
        lambda: _draw(image, items, {1: "a"}, 1.0, scored=False),
    ):
        tracemalloc.start()
        draw()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < number * side**2 / 2


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


@pytest.mark.parametrize("number", [1, 2, 6])
def test_every_picture_of_a_small_set_is_on_its_sheet_once(generated_root, number):
    content = json.loads((generated_root / "test_annotations.json").read_text())
    content["images"] = content["images"][:number]
    root = generated_root / "test_images"
    layout = {"num_images": 8, "columns": 1}
    sheet = prediction_sheet(content, root, [], **layout)
    cells = [
        prediction_sheet({**content, "images": [image]}, root, [], **layout)
        for image in content["images"]
    ]
    width = max(cell.shape[1] for cell in cells)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == width
    height = sheet.shape[0] // number
    for index, cell in enumerate(cells):
        row = sheet[index * height : (index + 1) * height]
        assert (row != 255).sum() == (cell != 255).sum() > 0


def test_the_file_is_the_sheet(generated_root, tmp_path):
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    detections = [{**a, "score": 0.4} for a in truth["annotations"]]
    given = (truth, generated_root / "test_images", detections)
    path = tmp_path / "a.png"
    draw_predictions(*given, path, num_images=2, min_score=0.3)
    sheet = prediction_sheet(*given, num_images=2, min_score=0.3)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], sheet)
    assert not np.array_equal(sheet, prediction_sheet(*given, num_images=2, min_score=0.5))


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


def show(root, output, *arguments: str) -> np.ndarray:
    show_dataset.main([str(root), "--output", str(output), *arguments])
    return cv2.imread(str(output))


def test_a_data_set_is_drawn_as_annotated_and_as_the_model_sees_it(generated_root, tmp_path):
    recipe = ["--config-file", str(SMALL_CONFIG), "--images", "3"]
    plain = show(generated_root, tmp_path / "plain.png", *recipe)
    augmented = show(generated_root, tmp_path / "augmented.png", *recipe, "--augmented")
    assert plain.shape != augmented.shape or not np.array_equal(plain, augmented)
    again = ("--augmented", "--overwrite", "SEED", "0")
    assert np.array_equal(
        augmented, show(generated_root, tmp_path / "augmented.png", *recipe, *again)
    )
    pasted = (*again, "INPUT.COPY_PASTE.PROBABILITY", "1.0", "INPUT.LSJ.ENABLED", "True")
    other = show(generated_root, tmp_path / "augmented.png", *recipe, *pasted)
    assert other.shape != augmented.shape or not np.array_equal(other, augmented)


def test_the_pictures_drawn_are_those_of_the_first_batches(generated_root, tmp_path):
    opts = ["DATASETS.ROOT", str(generated_root), "MODEL.DEVICE", "cpu"]
    opts += ["DATALOADER.NUM_WORKERS", "0", "SEED", "4"]
    cfg = load_small_config(opts)
    batch = next(iter(build_train_loader(cfg, training_records(cfg), seed=4)))
    names = MetadataCatalog.get("tiny_voc_train").thing_classes
    draw_training_pictures(batch, names, tmp_path / "batch.png")
    recipe = ["--config-file", str(SMALL_CONFIG), "--images", str(len(batch)), "--augmented"]
    shown = show(generated_root, tmp_path / "shown.png", *recipe, "SEED", "4")
    assert np.array_equal(shown, cv2.imread(str(tmp_path / "batch.png")))


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon", None])
def test_masks_of_every_format_and_pictures_of_bgr_are_drawn(tmp_path, mask_format):
    path = tmp_path / "a.png"
    pixels = np.full((60, 80, 3), (30, 120, 220), np.uint8)
    cv2.imwrite(str(path), pixels[..., ::-1])
    said = {"segmentation": [[20.0, 10, 60, 10, 60, 50, 20, 50]], "bbox": [20.0, 10, 40, 40]}
    said |= {"bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {"file_name": str(path), "height": 60, "width": 80, "annotations": [said]}
    sheets = []
    for image_format in ("RGB", "BGR"):
        mapper = InstanceMapper(
            [], is_train=True, image_format=image_format, mask_format=mask_format
        )
        draw_training_pictures([mapper(record)], ["thing"], path, image_format=image_format)
        sheets.append(cv2.imread(str(path))[..., ::-1])
        cv2.imwrite(str(path), pixels[..., ::-1])
    assert np.array_equal(*sheets)
    center = sheets[0][-300 // 2, 150]  # of the cell of 300 x 400, below its title
    differs = np.abs(center.astype(int) - pixels[0, 0]).max() > 5
    assert differs == (mask_format is not None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "choose 1 or more"),
        (["--dataset", "tiny_voc"], "no data set 'tiny_voc'"),
        (["--dataset", "tiny_voc_test", "--augmented"], "no picture has an object"),
        (["INPUT.MIN_SIZE_TRAIN"], "has no value"),
    ],
)
def test_what_cannot_be_shown_is_one_line(generated_root, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        show(generated_root, tmp_path / "a.png", *arguments)
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_picture_that_is_there_stays(generated_root, tmp_path):
    output = tmp_path / "a.png"
    output.write_bytes(b"mine")
    with pytest.raises(SystemExit, match="2"):
        show(generated_root, output)
    assert output.read_bytes() == b"mine"


def test_letters_of_other_languages_are_drawn():
    blank = np.zeros((30, 60, 3), dtype=np.uint8)
    masks, boxes = np.zeros((1, 30, 60), dtype=bool), np.array([[1.0, 1.0, 50.0, 25.0]])
    # A letter that the font lacks is a box, as the last one, which is assigned to none.
    letters = "\u00e9\u00df\u0142\u03b1\u0434\uffff"
    drawn = [draw_instances(blank, masks, boxes, [letter], [1]) for letter in letters]
    titles = [add_title(blank, letter) for letter in letters]
    for pictures in (drawn, titles):
        assert len({picture.tobytes() for picture in pictures}) == len(letters)


def test_predictions_are_drawn_beside_what_they_were_evaluated_on(generated_root, tmp_path):
    """A JSON without boxes, which loading computes from the masks."""
    content = json.loads((generated_root / "test_annotations.json").read_text())
    for annotation in content["annotations"]:
        del annotation["bbox"]
    file = tmp_path / "boxless.json"
    file.write_text(json.dumps(content))
    folder = tmp_path / "run/inference/mine"
    folder.mkdir(parents=True)
    (tmp_path / "run/evaluation.json").write_text(json.dumps({"dataset": "mine"}))
    (folder / "detections.json").write_text("[]")
    source = {"json": str(file), "images": str(generated_root / "test_images")}
    source |= {"num_images": len(content["images"])}
    source |= {"categories": {str(c["id"]): c["name"] for c in content["categories"]}}
    (folder / "dataset.json").write_text(json.dumps(source))
    program.main([str(tmp_path / "run"), "--images", "2"])
    sheet = tmp_path / "run/predictions.png"
    assert cv2.imread(str(sheet)) is not None

    sheet.write_bytes(b"mine")
    for options in ([], ["--output", str(sheet)]):
        with pytest.raises(SystemExit, match="2"):
            program.main([str(tmp_path / "run"), *options])
        assert sheet.read_bytes() == b"mine"
    program.main([str(tmp_path / "run"), "--images", "2", "--overwrite"])
    assert cv2.imread(str(sheet)) is not None


@pytest.mark.parametrize("name", ["sheet", "sheet.pdf"])
def test_a_file_that_can_hold_no_picture_is_refused_first(tmp_path, capsys, name):
    # Before the run, which is none.
    with pytest.raises(SystemExit, match="2"):
        program.main([str(tmp_path), "--output", str(tmp_path / name)])
    assert name in capsys.readouterr().err


def test_a_picture_may_have_any_name_and_its_folder_need_not(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16)
    path = tmp_path / "folder" / os.fsdecode(b"caf\xe9.png")
    check_picture_file(path)
    write_picture(path, grey)
    assert np.array_equal(cv2.imdecode(np.fromfile(path, np.uint8), -1), grey)
    (tmp_path / "file").touch()
    too_long = np.zeros((1, 70000), dtype=np.uint8)
    for name, picture in (("file/a.png", grey), ("a.jpg", too_long)):
        with pytest.raises(UserError, match="could not be written"):
            write_picture(tmp_path / name, picture)
    assert not (tmp_path / "a.jpg").exists()
