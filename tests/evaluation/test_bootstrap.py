"""The bootstrap draws pictures with what belongs to them, and both sides on the same draws."""

import copy
import json

import numpy as np
import pytest

from project.data.categories import read_categories
from project.evaluation.bootstrap import interval, resampled_precision
from project.evaluation.coco_metrics import evaluate_detections
from scripts import compare_submissions
from tests.test_docs import truth_as_submission


@pytest.fixture(scope="module")
def truth(generated_root):
    path = generated_root / "test_annotations.json"
    content = json.loads(path.read_text())
    return content, truth_as_submission(generated_root), read_categories(content, path)


def test_a_perfect_submission_is_perfect_in_every_draw(truth):
    content, perfect, categories = truth
    values = resampled_precision(content, [perfect, perfect[:0]], "segm", categories, range(5))
    assert values.shape == (5, 2)
    assert np.allclose(values[:, 0], 100) and np.allclose(values[:, 1], 0)


def test_draws_differ_and_are_around_the_value(truth):
    content, perfect, categories = truth
    half = perfect[::2]
    value = evaluate_detections(content, half, "segm", categories).summary["AP"]
    values = resampled_precision(content, [half, half], "segm", categories, range(40))
    assert np.array_equal(values[:, 0], values[:, 1])  # the same draws
    low, high = interval(values[:, 0])
    assert low < value < high and len(np.unique(values[:, 0])) > 10
    again = resampled_precision(content, [half], "segm", categories, range(3))
    assert np.array_equal(again[:, 0], values[:3, 0])


def test_the_interval_leaves_out_what_is_no_number():
    values = np.array([*range(101), np.nan])
    assert interval(values, 0.9) == pytest.approx((5.0, 95.0))


def test_annotations_are_repaired_as_the_evaluator_repairs_them(truth, tmp_path, capsys):
    """Polygons given as pairs of numbers were no objects."""
    content, perfect, _ = copy.deepcopy(truth)
    changed = next(a for a in content["annotations"] if isinstance(a["segmentation"], list))
    (first, *_) = changed["segmentation"]
    changed["segmentation"] = [[x, y] for x, y in zip(first[::2], first[1::2], strict=True)]
    paths = [tmp_path / "truth.json", tmp_path / "a.json"]
    for path, value in zip(paths, (content, perfect), strict=True):
        path.write_text(json.dumps(value))
    arguments = [str(paths[1]), str(paths[1]), "--bootstrap", "2", "--test-json", str(paths[0])]
    compare_submissions.main(arguments)
    assert "100.00 to 100.00" in capsys.readouterr().out
    changed["segmentation"] = None
    paths[0].write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="2"):
        compare_submissions.main(arguments)
    assert "truth.json: 1 x mask-" in capsys.readouterr().err


def test_the_program_prints_the_difference(truth, generated_root, tmp_path, capsys):
    _, perfect, _ = truth
    paths = []
    for name, submission in (("a", perfect[::2]), ("b", perfect)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(submission))
    arguments = [str(path) for path in paths] + ["--bootstrap", "20", "--test-json"]
    compare_submissions.main([*arguments, str(generated_root / "test_annotations.json")])
    output = capsys.readouterr().out
    assert "B - A" in output and "100.00 to 100.00" in output
    with pytest.raises(SystemExit, match="2"):
        compare_submissions.main([*arguments, str(generated_root / "test.json")])
    assert "annotations" in capsys.readouterr().err
