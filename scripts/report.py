#!/usr/bin/env python
"""One HTML file about a run: curves, AP, where the errors are, and its pictures.

python scripts/report.py output/demo
python scripts/report.py output/new --compare output/old

The run must have been evaluated: while training, or by train_net.py --eval-only. The file needs no
network and no other file.
"""

import argparse
import sys
from pathlib import Path

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="output directory of an evaluated run")
    parser.add_argument("--compare", type=Path, metavar="RUN", help="another run, to set beside it")
    parser.add_argument("--dataset", default="", help="(default: that of evaluation.json)")
    parser.add_argument(
        "--images", type=int, default=1000, help="pictures shown, at most (default: 1000)"
    )
    parser.add_argument("--output", type=Path, help="the file (default: RUN/report.html)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    from project.files import check_output_file, write_text
    from project.report.page import render_report
    from project.report.runs import load_run

    if args.images < 1:
        raise UserError(f"--images {args.images}: choose 1 or more")
    run = load_run(args.run, args.dataset)
    other = load_run(args.compare, args.dataset) if args.compare else None
    for each in filter(None, (run, other)):
        if "segm" not in each.evaluation:
            raise UserError(
                f"{each.folder} is of a model without masks (MODEL.MASK_ON False), and the report"
                " is about masks"
            )
    output = args.output or args.run / "report.html"
    check_output_file(output, args.overwrite)
    page = render_report(run, other, max_pictures=args.images, progress=sys.stderr.isatty())
    write_text(page, output)
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
