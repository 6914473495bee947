#!/usr/bin/env python
"""Split the training set for validation: pascal_train_split.json and pascal_val.json beside it.

python scripts/split_dataset.py data --share 0.15
python train_net.py --config-file configs/tiny_voc/cascade_mask_rcnn_resnest50_fpn_val.yaml

Every class has its share of images in both parts, as nearly as can be; pictures that are, or look,
the same stay together. The pictures stay where they are.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from project.data.checking.dataset import look_alikes
from project.data.checking.report import statistics
from project.data.layout import SPLIT_SETS, tiny_voc_files
from project.data.parts import classes_of_images, part_of, training_set
from project.data.splitting import stratified_split
from project.errors import UserError, reports_user_errors
from project.files import check_output_file, write_json


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of the data set (DATASETS.ROOT)")
    parser.add_argument("--share", type=float, default=0.15, help="of the images (default: 0.15)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, another split (default: 0)"
    )
    parser.add_argument(
        "--identical-only",
        action="store_true",
        help="keep pictures on one side where they are the same, not where they look the same",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier split")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if not 0 < args.share < 1:
        raise UserError(f"--share {args.share}: choose a number between 0 and 1")
    files = tiny_voc_files(Path(args.root))
    outputs = [files[name] for name in SPLIT_SETS]
    for output in outputs:
        check_output_file(output.json_file, args.overwrite)
    whole, content = training_set(Path(args.root))
    images = {image["id"]: whole.image_root / image["file_name"] for image in content["images"]}
    if len(images) < 2:
        raise UserError(f"{whole.json_file}: {len(images)} image(s) cannot be split")
    ids = defaultdict(list)
    for image_id, path in images.items():
        ids[path].append(image_id)
    same, similar = look_alikes(ids, decode=not args.identical_only, progress=True)
    groups = [*([path] for path in ids), *same, *similar]  # a file may have several images
    alike = [[image_id for path in group for image_id in ids[path]] for group in groups]
    together = [(group[0], other) for group in alike for other in group[1:]]
    chosen = stratified_split(classes_of_images(content), args.share, args.seed, together)
    reached = len(chosen) / len(images)
    if together and not args.share / 2 <= reached <= (1 + args.share) / 2:
        raise UserError(
            f"{len(chosen)} of {len(images)} images would be for validation, not"
            f" {args.share:.0%}: so many pictures look the same, and stay together; with"
            " --identical-only just those that are the same do"
        )
    if not 0 < len(chosen) < len(images):
        raise UserError(
            f"{whole.json_file}: none of {len(images)} images would be for"
            f" {'training' if chosen else 'validation'}; choose a --share nearer to 0.5"
        )

    counts: dict[str, list] = defaultdict(list)
    for output, image_ids in zip(outputs, (images.keys() - chosen, chosen), strict=True):
        part = part_of(content, image_ids)
        write_json(part, output.json_file)
        numbers = statistics(part)
        print(f"{output.json_file}: {numbers['images']} images, {numbers['objects']} objects")
        for name, values in numbers["categories"].items():
            counts[name] += [values["images"], values["objects"]]
    headers = ["category", "training images", "objects", "validation images", "objects"]
    print(tabulate([[name, *values] for name, values in counts.items()], headers=headers))
    if together:
        number = len({image_id for pair in together for image_id in pair})
        print(f"{number} images that are, or look, the same as others stay together")


if __name__ == "__main__":
    main()
