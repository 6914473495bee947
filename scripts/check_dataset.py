#!/usr/bin/env python
"""Check a data set: the JSON, every mask, every picture's header; say what is wrong, and where.

python scripts/check_dataset.py data
python scripts/check_dataset.py data --decode          # every picture to its end; look-alikes
python scripts/check_dataset.py data --fix data_fixed  # a repaired copy; nothing changes in place
python scripts/check_dataset.py cells --annotations train.json --images photos

Exit code 1 where there are errors, which training refuses.
"""

import argparse
import sys
from pathlib import Path

from project.data.checking.dataset import (
    check_sets,
    problem_to_json,
    write_repaired,
)
from project.data.checking.problems import Severity
from project.data.checking.report import class_table, problem_table, statistics
from project.data.layout import DatasetFiles, tiny_voc_files
from project.errors import UserError, reports_user_errors
from project.files import require_new_folder, write_json


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of the data set (DATASETS.ROOT)")
    parser.add_argument(
        "--annotations", metavar="JSON", help="in ROOT: a COCO JSON of another name"
    )
    parser.add_argument("--images", default="", metavar="FOLDER", help="in ROOT: its pictures")
    parser.add_argument("--decode", action="store_true", help="decode every picture to its end")
    parser.add_argument("--all", action="store_true", help="list every problem, not the first ones")
    parser.add_argument(
        "--json", metavar="FILE", help="write all problems and statistics there too"
    )
    parser.add_argument("--fix", metavar="OUT", help="write a repaired copy to this new folder")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are no UTF-8
    root = Path(args.root)
    if not root.is_dir():
        raise UserError(f"there is no folder {args.root!r}")
    if args.images and not args.annotations:
        raise UserError("--images goes with --annotations, whose pictures they are")
    if args.fix:
        require_new_folder(Path(args.fix))
    if args.json and Path(args.json).exists():
        raise UserError(f"--json {args.json} is there already; choose another name")
    known = tiny_voc_files(root)
    if args.annotations:
        name = Path(args.annotations).stem
        known = {name: DatasetFiles(name, root / args.annotations, root / args.images)}
    checked = check_sets(known, decode=args.decode, progress=sys.stderr.isatty())
    for one in checked:
        numbers = statistics(one.inspection.content)
        print(f"\n{one.files.name}: {one.files.json_file}, {one.files.image_root}/")
        print(
            f"{numbers['images']} images, {numbers['objects']} objects, {numbers['crowds']} crowds;"
            f" smallest, median and largest: width {numbers['width']}, height"
            f" {numbers['height']}, side of objects {numbers['object_side']}\n"
        )
        if numbers["objects"]:
            print(class_table(one.inspection.content), end="\n\n")
        if one.problems:
            print(problem_table(one.problems, shown=10**9 if args.all else 3))
        else:
            print("no problem")
    if args.fix:
        write_repaired(checked, root, Path(args.fix))
        print(f"\nThe repaired copy is {args.fix}; changes.json there lists what was changed")
    if args.json:
        report = {
            one.files.name: {
                "problems": [problem_to_json(problem) for problem in one.problems],
                "statistics": statistics(one.inspection.content),
            }
            for one in checked
        }
        write_json(report, args.json, indent=2)
    counts = dict.fromkeys(Severity, 0)
    for one in checked:
        for problem in one.problems:
            counts[problem.severity] += 1
    print("\n" + ", ".join(f"{number} {s.value}s" for s, number in counts.items()))
    sys.exit(1 if counts[Severity.ERROR] else 0)


if __name__ == "__main__":
    main()
