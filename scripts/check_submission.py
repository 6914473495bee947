#!/usr/bin/env python
"""Check a submission file before it is handed in: ids, sizes, masks, boxes, scores.

python scripts/check_submission.py 0856610.json --test-json data/test.json

Ends with exit code 1 if there are errors.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from project.data.checking.problems import Severity
from project.errors import reports_user_errors
from project.files import read_json
from project.submission.checking import check_submission, class_table, problem_table
from project.submission.reading import read_test_json


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the submission: a JSON list of detections")
    parser.add_argument(
        "--test-json", type=Path, required=True, help="COCO JSON with the images it is for"
    )
    parser.add_argument("--all", action="store_true", help="list every problem, not the first ones")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    submission, test_json = read_json(args.file), read_test_json(args.test_json)
    problems = check_submission(submission, test_json)
    counts = Counter(problem.severity for problem in problems)
    if not counts[Severity.ERROR]:
        print(class_table(submission, test_json), end="\n\n")
    if problems:
        print(problem_table(problems, shown=10**9 if args.all else 3), end="\n\n")
    number = f"{len(submission)} detections" if isinstance(submission, list) else "no detections"
    verdict = "not valid" if counts[Severity.ERROR] else "valid"
    print(f"{args.file}: {verdict}; {number},", end=" ")
    print(", ".join(f"{counts[severity]} {severity.value}s" for severity in Severity))
    sys.exit(1 if counts[Severity.ERROR] else 0)


if __name__ == "__main__":
    main()
