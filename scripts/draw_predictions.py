#!/usr/bin/env python
"""Draw predictions beside the ground truth, as one contact sheet.

python scripts/draw_predictions.py output/demo        (an evaluated run)
python scripts/draw_predictions.py output/demo --dataset tiny_voc_test_annotated --images 24
"""

import argparse
from pathlib import Path

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="output directory of an evaluated run")
    parser.add_argument(
        "--dataset", default="", help="which evaluated set (default: that of evaluation.json)"
    )
    parser.add_argument("--output", type=Path, help="the picture (default: RUN/predictions.png)")
    parser.add_argument("--overwrite", action="store_true", help="replace the picture")
    parser.add_argument("--images", type=int, default=12, help="how many pictures (default: 12)")
    parser.add_argument("--min-score", type=float, default=0.5, help="default: 0.5")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    from project.files import check_output_file, check_picture_file
    from project.report.runs import load_run
    from project.visualization.contact_sheet import draw_predictions

    if args.images < 1:
        raise UserError(f"--images {args.images}: choose 1 or more")
    output = args.output or args.run / "predictions.png"
    check_output_file(output, args.overwrite)
    check_picture_file(output)
    run = load_run(args.run, args.dataset)
    draw_predictions(
        run.coco_json,
        run.image_root,
        run.detections,
        output,
        num_images=args.images,
        min_score=args.min_score,
    )
    print(output)


if __name__ == "__main__":
    main()
