#!/usr/bin/env python
"""Print the AP table of an evaluation.json.

python scripts/print_evaluation.py output/demo/evaluation.json
"""

import argparse
from pathlib import Path

from tabulate import tabulate

from project.errors import UserError, reports_user_errors
from project.files import read_json

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    path = build_parser().parse_args(argv).file
    results = read_json(path)
    try:
        rows = [
            [label, *(results[key][column] for column in COLUMNS)]
            for key, label in (("bbox", "box"), ("segm", "mask"))
            if key == "bbox" or key in results  # a model may have boxes only
        ]
        dataset, iteration = results["dataset"], results["iteration"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no evaluation of this project: {error}") from error
    trained = "" if iteration is None else f", after {iteration} iterations"
    print(f"{dataset}{trained}, in percent:")
    print(tabulate(rows, headers=["", *COLUMNS], floatfmt=".2f", missingval="-"))


if __name__ == "__main__":
    main()
