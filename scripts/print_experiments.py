#!/usr/bin/env python
"""Print what scripts/experiments.sh has found: a row of AP for each of its rows, in Markdown.

python scripts/print_experiments.py output/experiments
python scripts/print_experiments.py output/experiments --learning-curves curves.svg

Means over the seeds, and the standard deviation where there are several. Minutes are those of
training, of one run. Learning curves are drawn through the rows whose names are equal but for a
number of training pictures at the end: ours_30, ours_60, ...
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import yaml
from tabulate import tabulate

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors
from project.files import check_output_file, read_json

COLUMNS = {
    "box AP": ("bbox", "AP"),
    "box AP50": ("bbox", "AP50"),
    "mask AP": ("segm", "AP"),
    "mask AP50": ("segm", "AP50"),
}
Curves = dict[str, dict[int, list[float]]]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the OUTPUT of scripts/experiments.sh")
    parser.add_argument(
        "--learning-curves",
        type=Path,
        metavar="FILE",
        help="draw AP over pictures: .svg, .png",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    from project.engine.run_record import is_finished

    if args.learning_curves:
        check_output_file(args.learning_curves, args.overwrite)
        if args.learning_curves.suffix not in (".svg", ".png"):
            raise UserError(f"{args.learning_curves}: name a file that ends in .svg or .png")
    experiments = {
        folder.name: {
            path.parent: read_json(path)
            for path in sorted(folder.glob("seed_*/evaluation.json"))
            if is_finished(path.parent)
        }
        for folder in sorted(args.output.glob("*"))
    }
    experiments = {name: runs for name, runs in experiments.items() if runs}
    if not experiments:
        raise UserError(f"{args.output} has no finished run: NAME/seed_N/evaluation.json")
    rows = [_row(name, runs) for name, runs in experiments.items()]
    headers = ["", "evaluated on", "seeds", *COLUMNS, "minutes"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    if args.learning_curves:
        _draw(_learning_curves(experiments), args.learning_curves)


def _row(name: str, runs: dict[Path, dict]) -> list[str]:
    values = [
        _spread([evaluation[task][metric] for evaluation in runs.values() if task in evaluation])
        for task, metric in COLUMNS.values()
    ]
    sets = ", ".join(sorted({evaluation["dataset"] for evaluation in runs.values()}))
    seeds = ", ".join(folder.name.removeprefix("seed_") for folder in runs)
    minutes = [value for folder in runs if (value := _minutes(folder)) is not None]
    return [name, sets, seeds, *values, f"{mean(minutes):.1f}" if minutes else ""]


def _spread(values: list[float]) -> str:
    if not values:  # the model has no masks
        return ""
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


def _learning_curves(experiments: dict[str, dict[Path, dict]]) -> dict[str, Curves]:
    """Column -> name without its number -> number of pictures -> the AP of each seed.

    Raises:
        UserError: no name has two numbers.
    """
    columns = {}
    for column in ("box AP", "mask AP"):
        task, metric = COLUMNS[column]
        curves: Curves = defaultdict(dict)
        for name, runs in experiments.items():
            values = [e[task][metric] for e in runs.values() if task in e]
            match = re.fullmatch(r"(.+)_(\d+)", name)
            if match and values:
                curves[match[1]][int(match[2])] = values
        columns[column] = {
            name: dict(sorted(points.items())) for name, points in curves.items() if len(points) > 1
        }
    if not columns["box AP"]:
        raise UserError("--learning-curves: no two finished rows are named NAME_30, NAME_60, say")
    return {column: curves for column, curves in columns.items() if curves}


def _draw(columns: dict[str, Curves], path: Path) -> None:
    # Here, for the table does not need it and would wait for it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for place, (column, curves) in enumerate(columns.items(), start=1):
        axes = figure.add_subplot(
            1, len(columns), place, xlabel="training pictures", ylabel=column, xscale="log"
        )
        for name, points in curves.items():
            (line,) = axes.plot([*points], [mean(values) for values in points.values()], label=name)
            for number, values in points.items():
                axes.plot([number] * len(values), values, "o", color=line.get_color(), markersize=4)
        numbers = sorted({number for points in curves.values() for number in points})
        axes.set_xticks(numbers, map(str, numbers))
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
