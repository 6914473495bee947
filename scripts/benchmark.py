#!/usr/bin/env python
"""Measure this project against stock Detectron2: both take turns in one process on the same inputs.

python scripts/benchmark.py data                                      (generated pictures)
python scripts/benchmark.py data --data data --json benchmark.json    (a data set of one's own)
python scripts/benchmark.py all

data    from JPEG files to the tensors of training pictures, on one core
masks   from the mask head's logits to the RLE of whole pictures
infer   the whole model on one picture or a batch, to masks as RLE
export  from the file of a picture to masks as RLE, by an exported model and by torch's
train   forward, backward and step of the whole model on one batch (minutes on a CPU)
eval    COCO's evaluation of 5,000 pictures, against pycocotools (minutes)
start   from the command to the first iteration, each side in processes of its own
growth  how cost grows with the batch, the pictures' size and number, workers and processes (long)

Each first shows that both give the same answer; where they do not, it ends with an error.
"""

import argparse
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors

GENERATED = 100  # pictures
ENLARGED = 6  # pictures, of some megabytes each


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--data", metavar="ROOT", help="a data set (default: generated pictures)")
    parser.add_argument(
        "--config-file", default="", help="a recipe (default: the tiny-VOC one, ResNeSt-50)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--batch", type=int, default=1, help="of infer, pictures at once (default: 1)"
    )
    parser.add_argument(
        "--enlarge",
        type=int,
        default=1,
        metavar="N",
        help="of data: the first pictures only, with N times as many pixels a side (default: all)",
    )
    parser.add_argument("--images", type=int, default=5000, help="of eval (default: 5000)")
    parser.add_argument(
        "--device", default="cpu", help="of masks, infer, train: cpu (default) or cuda"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures too")
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="TRACE",
        help="of infer or train: write a Chrome trace of one call of this project",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PLOT", help="of growth: draw it, .svg or .png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE, TRACE and PLOT")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys, at the end")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()
    from project.benchmark.timing import machine
    from project.files import check_output_file, write_json
    from project.versions import versions

    for name in ("rounds", "batch", "images", "enlarge"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: choose 1 or more")
    for path in filter(None, (args.json, args.profile, args.plot)):
        check_output_file(path, args.overwrite)
    if args.profile and args.benchmark not in ("infer", "train"):
        raise UserError("--profile goes with infer or train")
    if args.plot and (args.benchmark != "growth" or args.plot.suffix not in (".svg", ".png")):
        raise UserError("--plot goes with growth, and names a file that ends in .svg or .png")
    print(f"{machine()}; {args.rounds} rounds, median (lowest - highest)")
    figures = {"machine": machine(), "versions": versions(), "rounds": args.rounds}
    for name in BENCHMARKS if args.benchmark == "all" else [args.benchmark]:
        report, figures[name] = BENCHMARKS[name](args)
        print(f"\n{name}: {report}", flush=True)
        if args.json:  # after each, for the next one may fail
            write_json(figures, args.json, indent=1)


def _data(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.data import benchmark_data, enlarged, report_data

    with _recipe(args) as (cfg, records), tempfile.TemporaryDirectory() as folder:
        if args.enlarge > 1:
            records = [enlarged(x, args.enlarge, Path(folder)) for x in records[:ENLARGED]]
        result = benchmark_data(cfg, records, args.rounds)
    return report_data(result), asdict(result)


def _inference(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.detection import benchmark_inference
    from project.benchmark.model import report_model

    with _recipe(args) as (cfg, records):
        result = benchmark_inference(cfg, records[: args.batch], args.rounds, args.profile)
    return report_model(result), asdict(result)


def _export(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.exported import benchmark_export, report_export

    with _recipe(args) as (cfg, records):
        result = benchmark_export(cfg, records[0], args.rounds)
    return report_export(result), asdict(result)


def _training(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.model import report_model
    from project.benchmark.training import benchmark_training

    with _recipe(args) as (cfg, records):
        batch = records[: cfg.SOLVER.IMS_PER_BATCH]
        result = benchmark_training(cfg, batch, args.rounds, args.profile)
    return report_model(result), asdict(result)


@contextmanager
def _recipe(args: argparse.Namespace):
    """The config, with the records of its training pictures."""
    from project.benchmark.recipe import load_recipe

    with tempfile.TemporaryDirectory() as folder:
        opts = ["DATASETS.ROOT", _root(args, Path(folder)), *args.opts]
        opts += ["MODEL.DEVICE", args.device]
        yield load_recipe(args.config_file, opts)


def _root(args: argparse.Namespace, folder: Path) -> str:
    """The data set of ``--data``, else pictures generated into ``folder``; absolute."""
    from project.data.synthetic import generate_dataset

    if args.data:
        return str(Path(args.data).absolute())
    generate_dataset(folder, num_train=GENERATED, num_test=1, progress=True)
    return str(folder)


def _masks(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.masks import benchmark_masks, report_masks

    results = benchmark_masks(args.rounds, args.device)
    return report_masks(results), {name: asdict(result) for name, result in results.items()}


def _evaluation(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.evaluation import benchmark_evaluation, report_evaluation

    results = benchmark_evaluation(args.rounds, args.images)
    return report_evaluation(results), {name: asdict(result) for name, result in results.items()}


def _start(args: argparse.Namespace) -> tuple[str, dict]:
    from project.benchmark.start import benchmark_start, report_start
    from project.recipes import DEFAULT_RECIPE

    with tempfile.TemporaryDirectory() as folder:
        opts = [*args.opts, "DATASETS.ROOT", _root(args, Path(folder))]
        opts += ["MODEL.DEVICE", args.device]
        config_file = str(Path(args.config_file or DEFAULT_RECIPE).absolute())
        result = benchmark_start(config_file, opts, args.rounds)
    return report_start(result), asdict(result)


def _growth(args: argparse.Namespace) -> tuple[str, list]:
    from project.benchmark.growth import benchmark_growth, draw_growth, report_growth

    with _recipe(args) as (cfg, records):
        opts = [*args.opts, "DATASETS.ROOT", cfg.DATASETS.ROOT, "MODEL.DEVICE", args.device]
        config_file = str(Path(args.config_file).absolute()) if args.config_file else ""
        results = benchmark_growth(cfg, records, args.rounds, config_file, opts)
    if args.plot:
        draw_growth(results, args.plot)
    return report_growth(results), [asdict(result) for result in results]


BENCHMARKS = {
    "data": _data,
    "masks": _masks,
    "infer": _inference,
    "export": _export,
    "train": _training,
    "eval": _evaluation,
    "start": _start,
    "growth": _growth,
}


if __name__ == "__main__":
    main()
