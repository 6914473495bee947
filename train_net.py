#!/usr/bin/env python
"""Train or evaluate a model, or write a submission: the project's main program.

python train_net.py --num-gpus 2 --config-file configs/tiny_voc/....yaml [KEY VALUE ...]
torchrun --nproc-per-node 2 train_net.py --config-file ...
python train_net.py --dry-run --config-file ...
python train_net.py --resume [KEY VALUE ...]
python train_net.py --eval-only MODEL.WEIGHTS latest.pth
python train_net.py --eval-only --format-only submission.json MODEL.WEIGHTS latest.pth
"""

import argparse
import os
import sys
from pathlib import Path

from project.dependencies import require_detectron2, require_package
from project.errors import UserError, reports_user_errors


class _ListRecipes(argparse.Action):
    def __call__(self, parser, *_):
        require_package("tabulate")
        from tabulate import tabulate

        from project.recipes import list_recipes

        here = Path.cwd()
        rows = [
            (path.relative_to(here) if path.is_relative_to(here) else path, purpose)
            for path, purpose in list_recipes().items()
        ]
        print(tabulate(rows, tablefmt="plain"))
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The options that programs of Detectron2 have, under the same names, and the project's own."""
    parser = argparse.ArgumentParser(
        description="Train Cascade Mask R-CNN; --eval-only evaluates, or writes a submission.",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="a recipe (default: the checkpoint's; without one, the tiny-VOC one, ResNeSt-50)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint of OUTPUT_DIR"
    )
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training"
    )
    parser.add_argument(
        "--format-only",
        metavar="JSON",
        default="",
        help="with --eval-only: write the submission file of a test set that has no annotations",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run in OUTPUT_DIR, or JSON"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, train a few iterations, say what the run would take, and stop",
    )
    parser.add_argument(
        "--list", action=_ListRecipes, nargs=0, help="print every recipe with a line about it"
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        metavar="N",
        help="processes on this machine, a GPU each (default: 1, also where there are more GPUs)",
    )
    parser.add_argument(
        "--num-machines",
        type=int,
        default=1,
        metavar="N",
        help="machines that train together (default: 1)",
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="I", help="which of them this is, from 0"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="tcp://HOST:PORT",
        help="of machine 0, with several machines (default: a free port of this one)",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys, at the end"
    )
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()

    from project.config import load_config, parse_opts
    from project.devices import resolve_devices
    from project.engine.checks import forget_submission_set
    from project.engine.console import log_to_console
    from project.engine.job import Job
    from project.engine.launch import Processes, launch, started_by_torchrun, with_process_group
    from project.engine.run import prepare, prepare_and_run, run
    from project.evaluation.exported_model import require_keys_of_weights

    log_to_console(int(os.environ.get("RANK", "0")))
    job = Job(args.eval_only, args.format_only, args.resume, args.overwrite, args.dry_run)
    cfg = load_config(args.config_file, args.opts, resume=args.resume)
    given = parse_opts(args.opts)
    if "DATASETS.TEST" in given and "DATASETS.SUBMISSION" not in given:
        forget_submission_set(cfg, job)
    if args.eval_only:
        require_keys_of_weights(cfg.MODEL.WEIGHTS, given)
    number = resolve_devices(cfg, args.num_gpus, "MODEL.DEVICE" in given)
    device = cfg.MODEL.DEVICE
    if started_by_torchrun():
        started = int(os.environ["LOCAL_WORLD_SIZE"])
        agrees = args.num_gpus in (None, 0, started)
        if not agrees or args.num_machines > 1 or args.dist_url != "auto":
            raise UserError(
                f"torchrun has started the processes, {started} on this machine: leave --num-gpus,"
                " --num-machines and --dist-url out"
            )
        with_process_group(prepare_and_run, (cfg, job), device)
        return
    processes = Processes(number, device, args.num_machines, args.machine_rank, args.dist_url)
    if processes.machines > 1:
        launch(prepare_and_run, (cfg, job), processes)
        return
    prepare(cfg, job, number)  # mistakes end the program before any process is started
    cfg.freeze()
    launch(run, (cfg, job), processes)


if __name__ == "__main__":
    main(sys.argv[1:])
