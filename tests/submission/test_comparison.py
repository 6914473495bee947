"""Two submissions: what is in both, in one, and of another class."""

import copy
import json

import numpy as np
import pytest

from project.data.segmentation import compressed_rle
from project.submission.comparison import compare_submissions
from scripts import compare_submissions as program


def detection(x: int, category_id: int = 1, score: float = 0.9, image_id: int = 7) -> dict:
    """A square of 10 pixels at (x, 0)."""
    mask = np.zeros((20, 100), dtype=bool)
    mask[:10, x : x + 10] = True
    box = [float(x), 0.0, 10.0, 10.0]
    return {"image_id": image_id, "category_id": category_id, "score": score, "bbox": box} | {
        "segmentation": compressed_rle(mask)
    }


def test_a_submission_is_equal_to_itself():
    submission = [detection(x) for x in (0, 2, 30)] + [detection(0, 2), detection(0, image_id=8)]
    submission.append(detection(100))  # an empty mask
    comparison = compare_submissions(submission, copy.deepcopy(submission))
    assert len(comparison.pairs) == 6 and comparison.number_of_differences() == 0
    assert all(pair.first == pair.second and pair.iou == 1 for pair in comparison.pairs)
    assert comparison.differences_by_image() == {}


def test_each_detection_is_in_one_pair_and_the_best_go_together():
    first = [detection(0), detection(50)]
    second = [detection(2), detection(1, score=0.1), detection(80, 3)]
    comparison = compare_submissions(first, second)
    (pair,) = comparison.pairs
    assert pair.second["bbox"][0] == 1 and pair.iou == pytest.approx(90 / 110)
    assert comparison.only_first == [first[1]]
    assert comparison.only_second == [second[0], second[2]]
    assert comparison.differences_by_image() == {7: 3}
    assert len(compare_submissions(first, second, 0.9).pairs) == 0


def test_equal_places_prefer_the_same_class_then_the_closest_score():
    first = [detection(0, 1, 0.5)]
    second = [detection(0, 2, 0.5), detection(0, 1, 0.9), detection(0, 1, 0.6)]
    (pair,) = compare_submissions(first, second).pairs
    assert pair.second is second[2] and pair.same_category
    (pair,) = compare_submissions(first, second[:1]).pairs
    assert not pair.same_category


def test_counts_are_kept_by_image_and_by_category():
    first = [detection(0), detection(30, 2), detection(60, image_id=8)]
    second = [detection(0, 3), detection(30, 2), detection(0, image_id=9)]
    comparison = compare_submissions(first, second)
    assert comparison.number_of_differences() == 3
    assert comparison.differences_by_image() == {7: 1, 8: 1, 9: 1}
    assert comparison.of_image(7).number_of_differences() == 1
    assert len(comparison.of_category(3).pairs) == 1
    assert len(comparison.of_category(1).only_second) == 1
    assert compare_submissions([], []).number_of_differences() == 0


def run(tmp_path, first, second, *options):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, content in zip(paths, (first, second), strict=True):
        path.write_text(json.dumps(content))
    program.main([*map(str, paths), *options])


def test_the_program_counts_both_sides(tmp_path, capsys):
    first = [detection(0), detection(30, 2, 0.2), detection(60, 2)]
    second = [detection(0, score=0.8), detection(30, 1, 0.3)]
    run(tmp_path, first, second)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    #                 A    B   both only A, B  other
    assert ["1", "1", "2", "1", "0", "0", "1", "1.000", "-0.100"] in rows
    assert ["all", "3", "2", "1", "1", "0", "1", "1.000", "-0.100"] in rows
    assert ["7", "1", "0", "1"] in rows
    run(tmp_path, first[:1], first[:1])
    assert "Nothing is in one only" in capsys.readouterr().out
    run(tmp_path, first, second, "--score", "0.85")
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert ["all", "2", "0", "0"] in rows


@pytest.mark.parametrize(
    "wrong",
    [
        *({}, [1], [{"image_id": 1}], [detection(0) | {"segmentation": []}]),
        *([detection(0) | odd] for odd in ({"score": "0.9"}, {"image_id": [7]})),
        *([detection(0) | {"category_id": odd}] for odd in ("1", None)),
        [detection(0) | {"segmentation": {"size": ["20", "100"], "counts": "00"}}],
        [detection(0) | {"segmentation": {"size": [20, 100], "counts": [0, 2000]}}],
    ],
)
def test_what_is_no_submission_is_one_line(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, [detection(0)], wrong)
    assert "b.json" in capsys.readouterr().err


def test_draws_below_zero_are_one_line(tmp_path, capsys):
    annotated = tmp_path / "test.json"
    image = {"id": 7, "file_name": "a.png", "height": 20, "width": 100}
    category = {"id": 1, "name": "square"}
    annotated.write_text(
        json.dumps({"images": [image], "categories": [category], "annotations": [detection(0)]})
    )
    options = ["--test-json", str(annotated), "--bootstrap", "-3"]
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, [detection(0)], [detection(0)], *options)
    assert "--bootstrap -3" in capsys.readouterr().err


def test_the_originals_submission_against_a_thinned_one(shared, tmp_path, capsys):
    folder = shared / "data/seed_submission"
    submission = json.loads((folder / "mAP_0.38246_0856610.json").read_text())
    kept = [item for item in submission if item["score"] >= 0.5]
    run(tmp_path, submission, kept, "--test-json", str(folder / "test.json"))
    output = capsys.readouterr().out
    assert "aeroplane" in output and str(len(submission) - len(kept)) in output
