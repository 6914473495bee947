#!/usr/bin/env python
"""Compare two submissions for the same pictures: what both found, and what only one did.

python scripts/compare_submissions.py old.json new.json
python scripts/compare_submissions.py old.json new.json --test-json data/test.json --score 0.5
python scripts/compare_submissions.py old.json new.json --test-json data/test_annotations.json \
    --bootstrap 500

Detections are matched by the IoU of their masks. With annotations, --bootstrap says how much of a
difference in mask AP may be chance: the interval that holds 95 % of the differences when the
pictures are drawn anew, with replacement, so many times.
"""

import argparse
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from project.data.categories import Categories, read_categories
from project.data.checking.inspection import inspect_content
from project.data.checking.pictures import Header
from project.data.checking.report import require_no_errors
from project.errors import UserError, reports_user_errors
from project.evaluation.bootstrap import interval, resampled_precision
from project.evaluation.coco_metrics import evaluate_detections
from project.submission.comparison import Comparison, compare_submissions
from project.submission.reading import read_submission, read_test_json

COLUMNS = ["A", "B", "both", "only A", "only B", "other class", "mean IoU", "score B - A"]
FORMATS = ("", *[""] * 6, ".3f", "+.3f")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="A", type=Path)
    parser.add_argument("second", metavar="B", type=Path)
    parser.add_argument("--test-json", type=Path, help="COCO JSON with names of images and classes")
    parser.add_argument(
        "--iou", type=float, default=0.5, help="least IoU of a match (default: 0.5)"
    )
    parser.add_argument("--score", type=float, default=0.0, help="leave out what is less certain")
    parser.add_argument("--images", type=int, default=10, help="how many to list (default: 10)")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="DRAWS", help="500, say")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if not 0 < args.iou <= 1:
        raise UserError(f"--iou {args.iou}: choose one above 0, up to 1")
    if args.bootstrap < 0:
        raise UserError(f"--bootstrap {args.bootstrap}: choose 1 or more")
    content = read_test_json(args.test_json) if args.test_json else {"images": [], "categories": []}
    if args.bootstrap and not content.get("annotations"):
        raise UserError("--bootstrap needs a --test-json with annotations")
    class_names = {category["id"]: category["name"] for category in content["categories"]}
    file_names = {image["id"]: image["file_name"] for image in content["images"]}
    submissions = [
        [item for item in read_submission(path) if item["score"] >= args.score]
        for path in (args.first, args.second)
    ]
    comparison = compare_submissions(*submissions, args.iou)

    used = sorted({item["category_id"] for submission in submissions for item in submission})
    rows = [[class_names.get(i, str(i)), *_row(comparison.of_category(i), i)] for i in used]
    rows.append(["all", *_row(comparison)])
    print(f"A: {args.first}\nB: {args.second}\n")
    print(tabulate(rows, headers=["", *COLUMNS], tablefmt="simple", floatfmt=FORMATS))
    if args.bootstrap:
        content = _as_evaluated(content, args.test_json)
        categories = read_categories(content, args.test_json)
        print(f"\n{_precision(content, submissions, categories, args.bootstrap)}")
    differing = comparison.differences_by_image()
    if not differing:
        print("\nNothing is in one only, and all classes are the same")
        return
    print(f"\n{len(differing)} images differ; the most different:")
    rows = []
    for image_id in list(differing)[: args.images]:
        part = comparison.of_image(image_id)
        rows.append([file_names.get(image_id, image_id), *_row(part)[3:6]])
    print(tabulate(rows, headers=["image", *COLUMNS[3:6]], tablefmt="simple"))


def _as_evaluated(content: dict, test_json: Path) -> dict:
    """With annotations repaired, as the evaluator has them."""
    sizes = {x["file_name"]: Header(x["width"], x["height"]) for x in content["images"]}
    inspection = inspect_content(content, sizes)
    require_no_errors(inspection, test_json)
    return inspection.content


def _precision(
    content: dict, submissions: list[list[dict]], categories: Categories, draws: int
) -> str:
    """Mask AP of both, and of their difference, with intervals."""
    values = [
        evaluate_detections(content, found, "segm", categories).summary["AP"]
        for found in submissions
    ]
    resampled = resampled_precision(
        content, submissions, "segm", categories, tqdm(range(draws), leave=False)
    )
    columns = {
        "A": (values[0], resampled[:, 0]),
        "B": (values[1], resampled[:, 1]),
        "B - A": (values[1] - values[0], resampled[:, 1] - resampled[:, 0]),
    }
    rows = []
    for name, (value, drawn) in columns.items():
        low, high = interval(drawn)
        rows.append([name, f"{value:.2f}", f"{low:.2f} to {high:.2f}"])
    pictures = len(content["images"])
    return tabulate(rows, headers=["", "mask AP", f"95 % of draws of {pictures} pictures"])


def _row(part: Comparison, category_id: int | None = None) -> list:
    """:data:`COLUMNS` of all detections, or of those of one category."""
    same = [pair for pair in part.pairs if pair.same_category]
    numbers = [
        sum(category_id in (None, item["category_id"]) for item in items)
        for items in (
            [*(pair.first for pair in part.pairs), *part.only_first],
            [*(pair.second for pair in part.pairs), *part.only_second],
        )
    ]
    means = [None, None]
    if same:
        differences = [pair.second["score"] - pair.first["score"] for pair in same]
        means = [sum(pair.iou for pair in same) / len(same), sum(differences) / len(same)]
    others = len(part.pairs) - len(same)
    return [*numbers, len(same), len(part.only_first), len(part.only_second), others, *means]


if __name__ == "__main__":
    main()
