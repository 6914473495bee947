#!/usr/bin/env python
"""Parameters, FLOP and activations of a recipe's model; how the data's boxes meet its anchors.

python scripts/analyze_model.py --config-file configs/tiny_voc/....yaml
python scripts/analyze_model.py --size 480 640 MODEL.ROI_MASK_HEAD.NUM_HEADS 1
python scripts/analyze_model.py --anchors DATASETS.ROOT data
"""

import argparse

import numpy as np
from tabulate import tabulate

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default="", help="a recipe (default: the tiny-VOC one, ResNeSt-50)"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the model's input (default: 3 : 4, the short side as in the recipe's test)",
    )
    parser.add_argument(
        "--anchors",
        action="store_true",
        help="compare the boxes of DATASETS.TRAIN with the anchors",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys, at the end")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()
    from project.config import load_config
    from project.values import require_sound_model

    opts = [*args.opts, "MODEL.DEVICE", "cpu", "MODEL.INFERENCE_DTYPE", "float32"]
    cfg = load_config(args.config_file, opts)
    require_sound_model(cfg)
    if args.anchors:
        _report_anchors(cfg)
    else:
        _report_cost(cfg, args.size)


def _report_cost(cfg, size: list[int] | None) -> None:
    from detectron2.modeling import build_model

    from project.analysis.cost import count_cost

    height, width = size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST * 4 // 3)
    if min(height, width) < 32:
        raise UserError(f"--size {height} {width}: choose 32 pixels or more")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # so that there are detections to mask
    cost = count_cost(build_model(cfg), (height, width))
    total = cost.total
    rows = [
        [name, p.parameters / 1e6, p.flop / 1e9, p.flop / total.flop, p.activations / 1e6]
        for name, p in {**cost.parts, "all": total}.items()
    ]
    headers = ["", "parameters (M)", "FLOP (G)", "share", "activations (M)"]
    print(
        f"{cfg.MODEL.BACKBONE.NAME}, {cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes, random weights; one"
        f" picture of {height} x {width} pixels, {cost.proposals} proposals, {cost.detections}"
        " detections\n"
    )
    formats = ("", ".2f", ".1f", ".0%", ".1f")
    print(tabulate(rows, headers=headers, tablefmt="simple", floatfmt=formats))
    print("\nFLOP: a multiplication with an addition is one, as fvcore counts")


def _report_anchors(cfg) -> None:
    from tqdm import tqdm

    from project.analysis.anchors import fit_anchors
    from project.data.datasets import register_training_sets
    from project.data.loading import training_records

    categories = register_training_sets(cfg)
    records = training_records(cfg)
    fit = fit_anchors(cfg, tqdm(records, unit="picture", mininterval=1))
    smallest, middle, largest = np.percentile(fit.sides, [0, 50, 100])
    low, high = np.percentile(fit.ratios, [5, 95])
    print(
        f"{len(fit.ious)} objects in {len(records)} pictures with a short side of"
        f" {cfg.INPUT.MIN_SIZE_TEST}: sides {smallest:.0f} to {largest:.0f} pixels, median"
        f" {middle:.0f}; 90 % have a ratio of height to width of {low:.2f} to {high:.2f}\n"
    )
    names = cfg.MODEL.RPN.IN_FEATURES
    least, enough = cfg.MODEL.RPN.LOW_QUALITY_MIN_IOU, cfg.MODEL.RPN.IOU_THRESHOLDS[1]
    groups = [
        *((f"best anchor on {name}", fit.levels == i) for i, name in enumerate(names)),
        *((name, fit.classes == i) for i, name in enumerate(categories.names)),
        ("all", fit.ious >= 0),
    ]
    rows = [[name, *_fit_of(fit, chosen, enough)] for name, chosen in groups]
    headers = ["", "objects", "median IoU", "below 0.3", "below 0.5", f"{enough:g} and more"]
    formats = ("", "", ".2f", ".0%", ".0%", ".0%")
    print(tabulate(rows, headers=headers, tablefmt="simple", floatfmt=formats))
    print(
        f"\nIoU of each object with its best anchor. From {enough:g} on several anchors learn it,"
        f" below only the best one, if its IoU is above {least:g}. Objects with a low IoU ask for"
        " other MODEL.ANCHOR_GENERATOR.SIZES or ASPECT_RATIOS, or another size of the pictures"
    )


def _fit_of(fit, chosen: np.ndarray, enough: float) -> list:
    ious = fit.ious[chosen]
    if not len(ious):
        return [0, None, None, None, None]
    shares = [(ious < 0.3).mean(), (ious < 0.5).mean(), (ious >= enough).mean()]
    return [len(ious), np.median(ious), *shares]


if __name__ == "__main__":
    main()
