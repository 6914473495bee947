"""The table of experiments: its rows train, are not trained twice, and go on when interrupted."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from project.config import load_config
from project.recipes import RECIPES
from scripts import print_experiments
from tests.helpers import REPOSITORY

SMALL = "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 3"


def experiments(*arguments: str) -> subprocess.CompletedProcess:
    command = ["bash", "scripts/experiments.sh", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def write_run(
    folder: Path, mask_ap: float, images_per_second: float | None = 8.0, exit: str = "finished"
) -> None:
    folder.mkdir(parents=True)
    scores = {"AP": mask_ap, "AP50": 2 * mask_ap}
    evaluation = {"dataset": "tiny_voc_val", "bbox": scores, "segm": scores}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    record = {"end_iteration": 1200, "images_per_second": images_per_second, "exit": exit}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text("SOLVER:\n  IMS_PER_BATCH: 4\n")


def test_the_table_has_means_and_deviations_over_seeds(tmp_path, capsys):
    write_run(tmp_path / "one/seed_1", 10.0)
    write_run(tmp_path / "two/seed_1", 10.0, images_per_second=4.0)
    write_run(tmp_path / "two/seed_2", 13.0, images_per_second=4.0)
    print_experiments.main([str(tmp_path)])
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert rows[2] == ["one", "tiny_voc_val", "1", "10.00", "20.00", "10.00", "20.00", "10.0"]
    assert rows[3][2:4] == ["1, 2", "11.50 ± 2.12"]
    assert rows[3][-1] == "20.0"
    # One that went on with its evaluation only does not know its speed.
    write_run(tmp_path / "two/seed_3", 10.0, images_per_second=None)
    write_run(tmp_path / "three/seed_1", 10.0, images_per_second=None)
    print_experiments.main([str(tmp_path)])
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows[2:]] == ["10.0", "", "20.0"]


def test_only_runs_that_came_to_their_end_are_in_the_table(tmp_path, capsys):
    write_run(tmp_path / "one/seed_1", 10.0, exit="stopped by TEST.EARLY_STOP_PATIENCE")
    write_run(tmp_path / "one/seed_2", 20.0, exit="stopped by SIGTERM")
    write_run(tmp_path / "two/seed_1", 20.0, exit="running")
    print_experiments.main([str(tmp_path)])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 and "10.00" in rows[2]


def test_a_model_without_masks_has_its_row(tmp_path, capsys):
    write_run(tmp_path / "boxes_30/seed_1", 10.0)
    evaluation = tmp_path / "boxes_30/seed_1/evaluation.json"
    content = json.loads(evaluation.read_text())
    del content["segm"]
    evaluation.write_text(json.dumps(content))
    print_experiments.main([str(tmp_path)])
    row = re.split(r"\s*\|\s*", capsys.readouterr().out.splitlines()[2])[1:-1]
    assert row[3:7] == ["10.00", "20.00", "", ""]


def test_learning_curves_are_drawn_through_rows_with_numbers(tmp_path, capsys):
    output = tmp_path / "runs"
    for name in ("ours_30", "ours_120", "stock_30", "stock_120", "recipe"):
        write_run(output / name / "seed_1", 10.0)
    write_run(output / "ours_30/seed_2", 12.0)
    write_run(output / "anchors_32/seed_1", 12.0)  # one number is no curve
    plot = tmp_path / "curves.svg"
    print_experiments.main([str(output), "--learning-curves", str(plot)])
    picture = plot.read_text()
    # matplotlib writes each text, which it draws as paths, in a comment too.
    texts = set(re.findall(r"<!-- (.+?) -->", picture))
    assert texts >= {"ours", "stock", "30", "120", "training pictures", "box AP", "mask AP"}
    assert not texts & {"recipe", "60", "anchors", "32"}
    with pytest.raises(SystemExit, match="2"):
        print_experiments.main([str(output), "--learning-curves", str(plot)])
    assert "is there already" in capsys.readouterr().err
    assert plot.read_text() == picture


@pytest.mark.parametrize(
    ("plot", "message"), [("a.svg", "no two finished rows"), ("a.gif", "ends in .svg or .png")]
)
def test_learning_curves_that_cannot_be_drawn_are_refused(tmp_path, capsys, plot, message):
    write_run(tmp_path / "recipe/seed_1", 10.0)
    with pytest.raises(SystemExit, match="2"):
        print_experiments.main([str(tmp_path), "--learning-curves", str(tmp_path / plot)])
    assert message in capsys.readouterr().err
    assert not (tmp_path / plot).exists()


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        print_experiments.main([str(tmp_path)])
    assert "has no finished run" in capsys.readouterr().err


def test_every_row_is_a_config():
    lines = (REPOSITORY / "scripts/experiments.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    names = [name for name, *_ in rows]
    assert len(rows) > 10 and len(set(names)) == len(rows)
    for _, seeds, pictures, recipe, *pairs in rows:
        assert re.fullmatch(r"\d+(,\d+)*", seeds) and re.fullmatch(r"split|all|\d+", pictures)
        load_config(str(RECIPES / "small_data" / recipe), pairs)


def test_an_unknown_row_is_refused_before_anything_is_written(tmp_path):
    result = experiments(tmp_path, tmp_path / "out", "nonsense")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no row nonsense in ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_row_trains_is_not_trained_twice_and_goes_on(generated_root, tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(generated_root, data)
    arguments = [data, output, "jitter", "--", *SMALL.split(), "MODEL.DEVICE", "cpu"]
    first = experiments(*arguments)
    assert first.returncode == 0, first.stderr
    run = output / "jitter/seed_1"
    assert json.loads((run / "evaluation.json").read_text())["dataset"] == "tiny_voc_val"
    record = json.loads((run / "run.json").read_text())
    assert record["exit"] == "finished" and record["end_iteration"] == 3

    again = experiments(*arguments)
    assert f"experiments: {run} is finished" in again.stdout
    assert json.loads((run / "run.json").read_text()) == record
    assert again.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]

    (run / "evaluation.json").unlink()  # as if the machine had been switched off before it
    assert experiments(*arguments).returncode == 0
    assert (run / "evaluation.json").is_file()
    record = json.loads((run / "run.json").read_text())
    assert "--resume" in record["command"]
    # Nothing was left to train.
    assert record["start_iteration"] == record["end_iteration"] == 3
    assert record["images_per_second"] is None
