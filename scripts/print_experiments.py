#!/usr/bin/env python
"""Print what scripts/experiments.sh has found: a row of AP for each of its rows, in Markdown.

python scripts/print_experiments.py output/experiments

Means over the seeds, and the standard deviation where there are several. Minutes are those of
training, of one run.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import yaml
from tabulate import tabulate

from project.errors import UserError, reports_user_errors
from project.files import read_json

COLUMNS = {
    "box AP": ("bbox", "AP"),
    "box AP50": ("bbox", "AP50"),
    "mask AP": ("segm", "AP"),
    "mask AP50": ("segm", "AP50"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the OUTPUT of scripts/experiments.sh")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    output = build_parser().parse_args(argv).output
    experiments = {
        folder.name: sorted(folder.glob("seed_*/evaluation.json"))
        for folder in sorted(output.glob("*"))
    }
    rows = [_row(name, files) for name, files in experiments.items() if files]
    if not rows:
        raise UserError(f"{output} has no finished run: NAME/seed_N/evaluation.json")
    headers = ["", "seeds", *COLUMNS, "minutes"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def _row(name: str, files: list[Path]) -> list[str]:
    evaluations = [read_json(path) for path in files]
    values = [
        _spread([evaluation[task][metric] for evaluation in evaluations])
        for task, metric in COLUMNS.values()
    ]
    seeds = ", ".join(path.parent.name.removeprefix("seed_") for path in files)
    minutes = [value for path in files if (value := _minutes(path.parent)) is not None]
    return [name, seeds, *values, f"{mean(minutes):.1f}" if minutes else ""]


def _spread(values: list[float]) -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{deviation}"


def _minutes(run: Path) -> float | None:
    """Of the whole training, at the speed of its last part if it was interrupted.

    None where that part was no training, but evaluation only.
    """
    record = read_json(run / "run.json")
    if record["images_per_second"] is None:
        return None
    config = yaml.safe_load((run / "config.yaml").read_text())
    pictures = record["end_iteration"] * config["SOLVER"]["IMS_PER_BATCH"]
    return pictures / record["images_per_second"] / 60


if __name__ == "__main__":
    main()
