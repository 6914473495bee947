#!/usr/bin/env python
"""Take 30, 60, ... of the training pictures: pascal_train_30.json, ... beside pascal_train.json.

python scripts/subset_dataset.py data 30 60 120
python train_net.py ... DATASETS.TRAIN "('custom_train',)" \\
    DATASETS.TRAIN_JSON pascal_train_30.json DATASETS.TRAIN_IMAGES train_images

Every class has its share of images in each, as nearly as can be, and a smaller one is a part of a
larger: what does it gain to annotate more? The pictures stay where they are.
"""

import argparse
from pathlib import Path

from tabulate import tabulate

from project.data.checking.report import statistics
from project.data.parts import classes_of_images, part_of, training_set
from project.data.splitting import stratified_order
from project.errors import UserError, reports_user_errors
from project.files import check_output_file, write_json


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the data set (DATASETS.ROOT)")
    parser.add_argument("sizes", type=int, nargs="+", metavar="N", help="numbers of pictures")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pictures (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier ones")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    files, content = training_set(args.root)
    number = len(content["images"])
    outputs = {
        size: files.json_file.with_stem(f"{files.json_file.stem}_{size}")
        for size in sorted(set(args.sizes))
    }
    for size, output in outputs.items():
        if not 0 < size <= number:
            raise UserError(f"{size} pictures: {files.json_file} has {number}")
        check_output_file(output, args.overwrite)
    order = stratified_order(classes_of_images(content), args.seed, length=max(outputs))
    rows = []
    for size, output in outputs.items():
        part = part_of(content, set(order[:size]))
        write_json(part, output)
        numbers = statistics(part)
        images = [category["images"] for category in numbers["categories"].values()]
        rows.append([output, numbers["images"], numbers["objects"], min(images), max(images)])
    headers = ["", "images", "objects", "images of the rarest class", "of the commonest"]
    print(tabulate(rows, headers=headers))


if __name__ == "__main__":
    main()
