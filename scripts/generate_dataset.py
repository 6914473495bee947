#!/usr/bin/env python
"""Generate pictures with instance masks in the tiny-VOC layout, to try the project with.

python scripts/generate_dataset.py data --train 400 --test 80
"""

import argparse

from project.data.synthetic import generate_dataset
from project.errors import reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="the folder to write to")
    parser.add_argument("--train", type=int, default=400, help="training pictures (default: 400)")
    parser.add_argument("--test", type=int, default=80, help="test pictures (default: 80)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pictures (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in ROOT")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    generate_dataset(
        args.root, args.train, args.test, args.seed, overwrite=args.overwrite, progress=True
    )


if __name__ == "__main__":
    main()
