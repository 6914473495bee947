"""``scripts/predict.py``: every picture that is named, and what is written of it."""

import errno
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from project.data.categories import Categories
from project.errors import UserError
from project.prediction.inputs import Source, find_sources
from project.prediction.outputs import PredictionWriter
from project.runtime.detections import Detections
from scripts import predict
from tests.helpers import share_of_partners


def run(checkpoint, folder, *arguments: str) -> dict:
    arguments = [*arguments, "--weights", str(checkpoint), "--output", str(folder)]
    predict.main([*arguments, "--opts", "MODEL.DEVICE", "cpu"])
    return json.loads((folder / "coco.json").read_text())


@pytest.fixture(scope="module")
def pictures(generated_root):
    return generated_root / "test_images"


def test_pictures_crops_masks_and_json_agree(seeded_checkpoint, pictures, tmp_path, capsys):
    content = run(
        seeded_checkpoint, tmp_path, str(pictures), "--masks", "--crops", "--score", "0.2"
    )
    files = sorted(pictures.iterdir())
    assert [image["file_name"] for image in content["images"]] == [str(file) for file in files]
    assert len(list((tmp_path / "crops").iterdir())) == len(content["annotations"]) > 6
    assert str(len(content["annotations"])) in capsys.readouterr().out
    for image, file in zip(content["images"], files, strict=True):
        found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in found]
        drawn = cv2.imread(str(tmp_path / "pictures" / f"{file.stem}.jpg"))
        original = cv2.imread(str(file))
        assert drawn.shape == original.shape
        label = cv2.imread(str(tmp_path / "masks" / f"{file.stem}.instances.png"), -1)
        category = cv2.imread(str(tmp_path / "masks" / f"{file.stem}.categories.png"), -1)
        expected = np.zeros(label.shape, int)
        for k in reversed(range(len(found))):
            assert found[k]["area"] == masks[k].sum() and 0.2 <= found[k]["score"] <= 1
            expected[masks[k]] = k + 1
            (crop,) = (tmp_path / "crops").glob(f"{file.stem}_{k + 1:03d}_*.png")
            cut = cv2.imread(str(crop), -1)
            x, y = np.floor(found[k]["bbox"][:2]).astype(int)
            height, width = cut.shape[:2]
            assert np.array_equal(cut[..., 3] > 0, masks[k][y : y + height, x : x + width])
            assert np.array_equal(cut[..., :3], original[y : y + height, x : x + width])
        assert np.array_equal(label, expected)
        ids = np.array([0, *(a["category_id"] for a in found)])
        assert np.array_equal(category, ids[expected])


def test_the_json_is_coco(seeded_checkpoint, pictures, tmp_path):
    run(seeded_checkpoint, tmp_path, str(pictures), "--no-pictures", "--score", "0.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco.json"]
    index = COCO(str(tmp_path / "coco.json"))
    annotations = index.loadAnns(index.getAnnIds())
    assert len(annotations) == len({a["id"] for a in annotations}) > 10
    assert all(index.annToMask(a).sum() == a["area"] for a in annotations)
    assert {a["category_id"] for a in annotations} <= set(index.getCatIds())


def test_what_cannot_be_read_is_named_and_left_out(seeded_checkpoint, pictures, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, file in enumerate(sorted(pictures.iterdir())[:3]):
        (folder / f"{number}.jpg").write_bytes(file.read_bytes())
    (folder / "1.jpg").write_bytes(b"no picture")
    (folder / "film.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("left alone")
    with pytest.raises(SystemExit, match="1"):
        run(seeded_checkpoint, tmp_path / "out", str(folder), "--batch", "2")
    error = capsys.readouterr().err
    assert "2 left out" in error and "1.jpg" in error and "film.mp4" in error
    content = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"][-5:] for image in content["images"]] == ["0.jpg", "2.jpg"]


def write_odd_pictures(pictures, folder) -> list[Path]:
    """A picture, two of which the second is so narrow that nothing is left of it, and another."""
    folder.mkdir()
    first, second = sorted(pictures.iterdir())[:2]
    shutil.copy(first, folder / "a.jpg")
    cv2.imwrite(str(folder / "b.png"), np.zeros((1, 4000, 3), dtype=np.uint8))
    shutil.copy(second, folder / "c.jpg")
    return [folder / "a.jpg", folder / "c.jpg"]


def test_what_the_model_cannot_take_is_named_and_left_out(
    seeded_checkpoint, exported, pictures, tmp_path, capfd
):
    sound = write_odd_pictures(pictures, tmp_path / "in")
    for weights, options in (
        (seeded_checkpoint, ["--batch", "3", "--opts", "MODEL.DEVICE", "cpu"]),
        (exported, []),
    ):
        folder = tmp_path / weights.suffix
        arguments = [str(tmp_path / "in"), "--weights", str(weights), "--output", str(folder)]
        with pytest.raises(SystemExit, match="1"):
            predict.main([*arguments, "--no-pictures", *options])
        error = capfd.readouterr().err
        assert "1 left out" in error and "b.png: " in error and "4000 x 1" in error
        assert error.count("b.png") == 1 and "E:onnxruntime" not in error
        content = json.loads((folder / "coco.json").read_text())
        assert [image["file_name"] for image in content["images"]] == list(map(str, sound))


def test_names_need_not_be_in_utf_8(seeded_checkpoint, pictures, tmp_path, capsys):
    picture, video = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.jpg", b"v\xeddeo.avi"))
    shutil.copy(min(pictures.iterdir()), picture)
    write_video(tmp_path / "clip.avi", pictures)
    (tmp_path / "clip.avi").rename(video)
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match="1"):
        run(seeded_checkpoint, out, str(tmp_path), "--masks", "--crops", "--score", "0.2")
    error = capsys.readouterr().err
    assert "1 left out" in error and "must be in UTF-8" in error
    content = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [str(picture)]
    assert [path.name for path in (out / "pictures").iterdir()] == [picture.name]
    assert len(list((out / "crops").iterdir())) == len(content["annotations"]) > 0


def test_what_cannot_be_written_is_left_out(seeded_checkpoint, pictures, tmp_path, capsys):
    first, second = sorted(pictures.iterdir())[:2]
    (tmp_path / f"out/pictures/{first.stem}.jpg").mkdir(parents=True)
    with pytest.raises(SystemExit, match="1"):
        run(seeded_checkpoint, tmp_path / "out", str(first), str(second), "--overwrite")
    error = capsys.readouterr().err
    assert "1 left out" in error and f"{first.stem}.jpg could not be written" in error
    assert (tmp_path / f"out/pictures/{second.stem}.jpg").is_file()
    content = json.loads((tmp_path / "out/coco.json").read_text())
    assert len(content["images"]) == 2  # what was found is known all the same


def test_a_full_disk_ends_it(seeded_checkpoint, pictures, tmp_path, monkeypatch):
    def write_picture(path, image):
        raise UserError("full") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("project.prediction.outputs.write_picture", write_picture)
    with pytest.raises(SystemExit, match="2"):
        run(seeded_checkpoint, tmp_path, str(pictures))
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 1


def test_a_video_is_not_written_under_a_name_that_is_not_in_utf_8(tmp_path):
    source = Source(tmp_path / "clip.avi", os.fsdecode(b"cl\xedp"), is_video=True)
    nothing = Detections(
        *(np.zeros(shape, np.float32) for shape in ((0, 4), 0)), np.zeros(0, int), (), None, (8, 8)
    )
    writer = PredictionWriter(tmp_path, Categories((1,), ("a",)))
    with pytest.raises(UserError, match="UTF-8"):
        writer.write(source, 0, np.zeros((8, 8, 3), np.uint8), nothing)


def write_video(path, pictures, rate: float = 5) -> int:
    """How many frames it has."""
    frames = [cv2.imread(str(file)) for file in sorted(pictures.iterdir())]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (160, 120))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.resize(frame, (160, 120)))
    writer.release()
    return len(frames)


def test_a_video_that_was_cut_off_is_named(seeded_checkpoint, pictures, tmp_path, capsys):
    path = tmp_path / "clip.avi"
    number = write_video(path, pictures)
    run(seeded_checkpoint, tmp_path / "whole", str(path), "--no-pictures")
    assert "warning" not in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    images = run(seeded_checkpoint, tmp_path / "cut", str(path), "--no-pictures")["images"]
    assert 0 < len(images) < number
    expected = f"warning: {path} should have {number} frames, but only {len(images)}"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("rate", [5, 90.123])  # the second is no rate of MPEG-4
def test_a_video_becomes_a_video(seeded_checkpoint, pictures, tmp_path, rate):
    path = tmp_path / "clip.avi"
    number_of_frames = write_video(path, pictures, rate)
    content = run(seeded_checkpoint, tmp_path / "out", str(path), "--masks", "--batch", "4")
    assert [image["frame"] for image in content["images"]] == list(range(number_of_frames))
    assert len(list((tmp_path / "out/masks").glob("clip_*.instances.png"))) == number_of_frames
    capture = cv2.VideoCapture(str(tmp_path / "out/pictures/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, abs=0.01)
    number = 0
    while capture.read()[0]:
        number += 1
    assert number == number_of_frames


@pytest.mark.parametrize(("begin", "end"), [("", "\n"), ("\ufeff", "\r\n")])  # Unix, Windows
def test_names_from_the_standard_input(
    seeded_checkpoint, pictures, tmp_path, monkeypatch, begin, end
):
    files = sorted(pictures.iterdir())[1:3]
    lines = begin + "".join(f"{file}{end}" for file in files)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    content = run(seeded_checkpoint, tmp_path, "-", "--no-pictures")
    assert [image["file_name"] for image in content["images"]] == [str(file) for file in files]


def test_every_picture_once_under_a_name_of_its_own(tmp_path):
    for name in ("a/x.jpg", "a/x.png", "a/deep/x.jpg", "b/x.jpg", "a/y.txt", "a/clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    sources = find_sources([f"{a}/x.jpg", a, f"{b}/*.jpg", b])
    files = [source.path.relative_to(tmp_path).as_posix() for source in sources]
    assert files == ["a/x.jpg", "a/clip.mp4", "a/deep/x.jpg", "a/x.png", "b/x.jpg"]
    names = [source.name for source in sources]
    assert len(set(names)) == len(names) and names[:3] == ["x", "clip", "deep/x"]
    assert [source.is_video for source in sources] == [False, True, False, False, False]


@pytest.mark.parametrize("order", [1, -1])
def test_a_frame_and_a_picture_have_no_name_in_common(tmp_path, order):
    files = ["clip.mp4", "clip_000001.png", "clip_2000000.png", "clip.jpg", "clip_1.png"]
    for name in files:
        (tmp_path / name).touch()
    sources = find_sources([str(tmp_path / name) for name in files[::order]])
    assert [source.path.name for source in sources] == files[::order]
    names = [source.name_of(frame) for source in sources for frame in (0, 1, 2000000)]
    assert len(set(names)) == len(files) + 2
    assert {source.path.name: source.name for source in sources}["clip_1.png"] == "clip_1"


def test_a_folder_is_searched_behind_links_but_for_what_was_written_there(tmp_path):
    for name in ("x.jpg", "._x.jpg", "in/deep/y.jpg", "out/pictures/x.jpg"):
        (tmp_path / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "elsewhere" / name).touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/in/back").symlink_to(tmp_path / "elsewhere")
    output = tmp_path / "elsewhere/out"
    sources = find_sources([str(folder)], output)
    assert [source.name for source in sources] == ["link/in/deep/y", "link/x"]
    # A name that was given counts.
    assert [source.name for source in find_sources([str(output)], output)] == ["pictures/x"]


def test_a_pattern_does_not_find_what_was_written_there(tmp_path, monkeypatch):
    for name in ("a.jpg", "in/b.jpg", "out/pictures/a.jpg", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.jpg", str(tmp_path / "**/*.jpg"), "*"):
        found = {source.path.name for source in find_sources([pattern], Path("out"))}
        assert found == {"a.jpg", "b.jpg"}, pattern
    assert len(find_sources(["out/**/*.jpg"], Path("out"))) == 1  # a name that was given
    with pytest.raises(UserError, match="no pictures in what matches it"):
        find_sources(["emp*"], Path("out"))


def test_a_link_to_nothing_is_one_line_and_left_out_of_a_pattern(tmp_path):
    dead = tmp_path / "dead.jpg"
    dead.symlink_to(tmp_path / "nowhere.jpg")
    for path in (str(dead), "/dev/null"):
        with pytest.raises(UserError, match="no file or folder"):
            find_sources([path])
    (tmp_path / "a.jpg").write_bytes(b"")
    assert [x.path for x in find_sources([f"{tmp_path}/*.jpg"])] == [tmp_path / "a.jpg"]


@pytest.mark.parametrize("paths", [["nowhere"], ["*.nothing"], []])
def test_nothing_to_look_at_is_one_line(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        find_sources(paths)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in that folder"):
        find_sources(["empty"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, pictures, capsys, overwrite):
    """Before the model, which is not there, is looked at."""
    (tmp_path / "file").write_text("mine")
    options = ["--overwrite"] * overwrite
    arguments = ["--weights", "none.pth", "--output", str(tmp_path / "file/x"), str(pictures)]
    with pytest.raises(SystemExit, match="2"):
        predict.main([*arguments, *options])
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error and error.count("\n") == 1


def test_a_folder_with_files_stays(seeded_checkpoint, pictures, tmp_path, capsys):
    (tmp_path / "coco.json").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        run(seeded_checkpoint, tmp_path, str(pictures))
    assert (tmp_path / "coco.json").read_text() == "mine"
    assert "not an empty folder" in capsys.readouterr().err
    assert run(seeded_checkpoint, tmp_path, str(pictures), "--overwrite", "--no-pictures")


def test_with_test_time_augmentation(seeded_checkpoint, pictures, tmp_path):
    file = str(sorted(pictures.iterdir())[0])
    plain, augmented = (
        run(seeded_checkpoint, tmp_path / name, file, "--no-pictures", "--score", "0.1", *options)
        for name, options in (("plain", []), ("augmented", ["--tta"]))
    )
    assert augmented["annotations"] and augmented["annotations"] != plain["annotations"]


def test_an_exported_model_finds_the_same(seeded_checkpoint, exported, pictures, tmp_path, capsys):
    options = [str(pictures), "--no-pictures", "--score", "0.1", "--output"]
    expected = run(seeded_checkpoint, tmp_path / "torch", *options[:-1])["annotations"]
    predict.main(["--weights", str(exported), *options, str(tmp_path / "onnx")])
    found = json.loads((tmp_path / "onnx/coco.json").read_text())["annotations"]
    assert len(found) > 10
    # Of equally certain ones that overlap, another one may be left.
    assert min(share_of_partners(expected, found), share_of_partners(found, expected)) > 0.95
    with pytest.raises(SystemExit, match="2"):
        predict.main(["--weights", str(exported), *options, str(tmp_path / "tta"), "--tta"])
    assert "--tta needs a checkpoint" in capsys.readouterr().err


def test_label_masks_without_room_for_a_background_are_refused(tmp_path):
    for ids in ((0, 1), (1, 65536)):
        with pytest.raises(UserError, match=f"here they are {ids[0]} to {ids[1]}"):
            PredictionWriter(tmp_path, Categories(ids, ("a", "b")), masks=True)
    PredictionWriter(tmp_path, Categories((0, 1), ("a", "b")))


def test_names_on_the_standard_input_need_be_no_utf_8(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"caf\xe9.jpg\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    assert [os.fsencode(name) for name in predict._names(["-"])] == [b"caf\xe9.jpg"]
