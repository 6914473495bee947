"""From the command to the first iteration: imports, data, model, the first batch."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from project.benchmark.processes import run_apart
from project.benchmark.timing import OURS, STOCK, Spread, ratio, spreads, take_turns
from project.errors import UserError, reports_user_errors


@dataclass(frozen=True)
class StartBenchmark:
    """Seconds from starting Python until the model is called for the first time.

    Attributes:
        pictures: in the first batch, on both sides.
        seconds: of each program.
        ratio: how many times as fast as Detectron2 this project is.
    """

    pictures: int
    seconds: dict[str, Spread]
    ratio: Spread


def report_start(result: StartBenchmark) -> str:
    """The figures in words."""
    seconds = ", ".join(f"{name} {spread} s" for name, spread in result.seconds.items())
    return f"a first batch of {result.pictures}: {seconds}; {result.ratio} times as fast"


def benchmark_start(config_file: str, opts: Sequence[str], rounds: int) -> StartBenchmark:
    """Start both again and again, each in a process of its own.

    The weights are random on both sides. What a first start keeps for later ones (compiled files,
    headers of pictures) is there.

    Args:
        config_file, opts: as of ``train_net.py``, with ``DATASETS.ROOT``.

    Raises:
        UserError: a side fails, or their batches differ in size.
    """
    pictures = {}

    def program(name: str):
        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--config-file", config_file, *opts, "MODEL.WEIGHTS", ""]
                arguments += ["OUTPUT_DIR", folder]
                pictures[name] = int(run_apart("start", name, arguments))

        return run

    seconds = take_turns({name: program(name) for name in (STOCK, OURS)}, rounds)
    if pictures[STOCK] != pictures[OURS]:
        raise UserError(f"start: the first batches have {pictures} pictures")
    return StartBenchmark(pictures[OURS], spreads(seconds), ratio(seconds, STOCK, OURS))


@reports_user_errors
def _main(name: str, arguments: list[str]) -> None:
    """Print the number of pictures of the first batch."""
    _stop_at_first_iteration()
    if name == STOCK:
        _train_stock(arguments)
    else:
        import train_net

        train_net.main(arguments)


def _stop_at_first_iteration() -> None:
    from detectron2.modeling.meta_arch import GeneralizedRCNN
    from torch.nn.modules.module import register_module_forward_pre_hook

    def stop(module, inputs) -> None:
        if isinstance(module, GeneralizedRCNN) and module.training:
            print(f"\n{len(inputs[0])}", flush=True)
            os._exit(0)

    register_module_forward_pre_hook(stop)


def _train_stock(arguments: list[str]) -> None:
    """The least code of a user of Detectron2, with the same body."""
    from detectron2.data.datasets import register_coco_instances
    from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup

    from project.benchmark.model import config_of
    from project.config import load_config
    from project.data.datasets import require_dataset

    args = default_argument_parser().parse_args(arguments)
    cfg = load_config(args.config_file, args.opts)
    files = require_dataset(cfg, cfg.DATASETS.TRAIN[0])
    register_coco_instances("stock_train", {}, str(files.json_file), str(files.image_root))
    cfg = config_of(cfg, STOCK)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("stock_train",), ()
    default_setup(cfg, args)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
