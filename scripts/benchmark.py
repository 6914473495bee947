#!/usr/bin/env python
"""Measure this project against stock Detectron2: both take turns in one process on the same inputs.

python scripts/benchmark.py data                                      (generated pictures)
python scripts/benchmark.py data --data data --json benchmark.json    (a data set of one's own)

It first shows that both give the same answer; where they do not, it ends with an error.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = REPOSITORY / "configs/tiny_voc/cascade_mask_rcnn_resnest50_fpn.yaml"
GENERATED = 100  # pictures


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=["data"], help="data: from JPEG files to tensors")
    parser.add_argument("--data", metavar="ROOT", help="a data set (default: generated pictures)")
    parser.add_argument("--config-file", default="", help="a recipe (default: the original's)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures too")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys, at the end")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()
    from project.files import check_output_file, write_json

    if args.rounds < 1:
        raise UserError(f"--rounds {args.rounds}: choose 1 or more")
    if args.json:
        check_output_file(args.json, args.overwrite)
    with tempfile.TemporaryDirectory() as folder:
        result = _benchmark_data(args, args.data or _generate(Path(folder)))
    if args.json:
        write_json(result, args.json, indent=1)


def _generate(folder: Path) -> str:
    from project.data.synthetic import generate_dataset

    generate_dataset(folder, num_train=GENERATED, num_test=1, progress=True)
    return str(folder)


def _benchmark_data(args: argparse.Namespace, root: str) -> Mapping:
    from project.benchmark.data import OURS, STOCK, benchmark_data
    from project.benchmark.timing import machine
    from project.config import load_config
    from project.data.datasets import register_training_sets
    from project.data.loading import training_records
    from project.versions import versions

    opts = ["DATASETS.ROOT", root, *args.opts]
    cfg = load_config(args.config_file, opts, default_config=str(DEFAULT_CONFIG))
    register_training_sets(cfg)
    records = training_records(cfg)
    result = benchmark_data(cfg, records, args.rounds)

    agreement = result.agreement
    print(
        f"{machine()}; one core, one process\n"
        f"{len(records)} pictures of {args.data or 'the generator'}, short side"
        f" {'/'.join(map(str, cfg.INPUT.MIN_SIZE_TRAIN))}; {args.rounds} rounds\n"
        f"Resized alike: pixels, boxes, classes and RLE masks equal; of {agreement.masks} masks,"
        f" {agreement.pixels:.2%} of the pixels differ, all within {agreement.distance} pixels of"
        " the boundary of a polygon\n"
    )
    rows = [
        [name, *_milliseconds(spread), 1 / spread.median] for name, spread in result.seconds.items()
    ]
    headers = ["", "ms a picture", "min", "max", "pictures/s"]
    print(tabulate(rows, headers, floatfmt=".2f"))
    print(f"{OURS} is {result.ratio} times as fast as {STOCK}\n")
    steps = {step: None for name in result.steps for step in result.steps[name]}
    rows = [[step, *(1e3 * result.steps[n].get(step, 0) for n in result.steps)] for step in steps]
    print(tabulate(rows, ["step, ms a picture", *result.steps], floatfmt=".2f"))
    print()
    rows = [[name, *_milliseconds(spread)] for name, spread in result.switches.items()]
    print(tabulate(rows, [f"{OURS}, with", "ms a picture", "min", "max"], floatfmt=".2f"))
    return {
        "benchmark": "data",
        "machine": machine(),
        "versions": versions(),
        "pictures": len(records),
        "rounds": args.rounds,
        **asdict(result),
    }


def _milliseconds(spread) -> list[float]:
    return [1e3 * spread.median, 1e3 * spread.minimum, 1e3 * spread.maximum]


if __name__ == "__main__":
    main()
