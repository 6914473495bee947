#!/usr/bin/env python
"""Draw pictures of a data set with their boxes and masks, as one contact sheet.

python scripts/show_dataset.py data                             (as annotated)
python scripts/show_dataset.py data --augmented --config-file configs/...yaml
python scripts/show_dataset.py data --augmented INPUT.COPY_PASTE.PROBABILITY 1.0

With --augmented it is what the model sees: the first pictures of a training run with that config
and SEED, after resizing, flipping and all that INPUT asks for. Crowds are not drawn: they do not
train.
"""

import argparse
from itertools import chain, islice
from pathlib import Path

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of the data set (DATASETS.ROOT)")
    parser.add_argument("--dataset", help="which one (default: the first of DATASETS.TRAIN)")
    parser.add_argument("--augmented", action="store_true", help="as the model sees them")
    parser.add_argument(
        "--config-file", default="", help="a recipe (default: the tiny-VOC one, ResNeSt-50)"
    )
    parser.add_argument("--images", type=int, default=12, help="how many (default: 12)")
    parser.add_argument(
        "--output", type=Path, default=Path("dataset.png"), help="default: dataset.png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the picture")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys, at the end")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()
    from project.config import load_config
    from project.data.datasets import register_training_sets
    from project.files import check_output_file, check_picture_file
    from project.visualization.contact_sheet import draw_training_pictures

    if args.images < 1:
        raise UserError(f"--images {args.images}: choose 1 or more")
    check_output_file(args.output, args.overwrite)
    check_picture_file(args.output)
    opts = ["DATASETS.ROOT", args.root, *args.opts]
    opts += ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
    cfg = load_config(args.config_file, opts)
    if args.dataset:
        cfg.DATASETS.TRAIN = (args.dataset,)
    categories = register_training_sets(cfg)
    pictures = _as_trained(cfg) if args.augmented else _as_annotated(cfg, args.images)
    draw_training_pictures(
        islice(pictures, args.images),
        categories.names,
        args.output,
        image_format=cfg.INPUT.FORMAT,
    )
    print(args.output)


def _as_trained(cfg):
    from project.data.loading import build_train_loader, training_records

    records = training_records(cfg)
    return chain.from_iterable(build_train_loader(cfg, records, seed=max(cfg.SEED, 0)))


def _as_annotated(cfg, number: int):
    """Pictures spread evenly over the data sets, at their own size."""
    from detectron2.data import DatasetCatalog

    from project.data.mapper import InstanceMapper

    records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
    if not records:
        raise UserError(f"{', '.join(cfg.DATASETS.TRAIN)}: there are no pictures to draw")
    mapper = InstanceMapper([], is_train=True, image_format=cfg.INPUT.FORMAT, mask_format="bitmask")
    number = min(number, len(records))
    return (mapper(records[i * len(records) // number]) for i in range(number))


if __name__ == "__main__":
    main()
