"""How cost grows: with the batch, the pictures' size and number, workers and processes."""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from project.benchmark import evaluation
from project.benchmark.data import require_stock_augmentations, with_keys
from project.benchmark.detection import (
    MIN_FOUND,
    build_detectors,
    capture_graphs,
    detection_programs,
    share_found,
)
from project.benchmark.model import OURS_BF16, config_of
from project.benchmark.processes import run_apart, run_command
from project.benchmark.recipe import load_recipe
from project.benchmark.timing import OURS, STOCK, exact_float32, spreads, take_turns
from project.data.loading import build_train_loader
from project.data.mapper import build_mapper
from project.errors import UserError, reports_user_errors
from project.memory import peak_memory_of_device
from project.recipes import DEFAULT_RECIPE
from project.seeding import seed_generators

BATCHES = (1, 2, 4, 8, 16)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)  # of the recipe's largest short side
IMAGES = (1000, 2000, 5000, 10000, 20000)
WORKERS = (0, 1, 2, 4, 8)
PROCESSES = (1, 2)
LOADED = TRAINED = 40  # batches


@dataclass(frozen=True)
class Growth:
    """What grows with what, of each program.

    Attributes:
        x, y: what, with units.
        values: program -> x -> y.
    """

    x: str
    y: str
    values: dict[str, dict[int, float]]


def benchmark_growth(
    cfg: CfgNode, records: Sequence[dict], rounds: int, config_file: str, opts: Sequence[str]
) -> list[Growth]:
    """Speed of detection, memory of training, time of evaluation, speed of loading and training.

    Args:
        config_file, opts: what ``cfg`` was made of, for processes of their own.

    Raises:
        UserError: detections differ, with float32 on both sides, or the recipe has augmentations
            that Detectron2 has not.
    """
    require_stock_augmentations(cfg)
    return [
        growth_with_batch(cfg, records[0], rounds),
        growth_with_size(cfg, config_file, opts),
        growth_with_images(IMAGES),
        growth_with_workers(cfg, records),
        growth_with_processes(cfg, config_file, opts),
    ]


def growth_with_batch(cfg: CfgNode, record: Mapping, rounds: int) -> Growth:
    """Pictures a second, as :func:`project.benchmark.detection.benchmark_inference` has them."""
    cfg, models, categories = build_detectors(cfg)
    picture = build_mapper(cfg, is_train=False)(record)
    speed: dict[str, dict[int, float]] = defaultdict(dict)
    for number in BATCHES:
        programs = detection_programs(models, partial(list, [picture] * number), categories)
        with exact_float32():
            capture_graphs(programs, models)
            expected, found = programs[STOCK](), programs[OURS]()
        capture_graphs(programs, models)
        share = share_found(expected, found)
        if len(expected) != len(found) or share < MIN_FOUND:
            raise UserError(
                f"growth: {len(expected)} and {len(found)} detections in {number} pictures, of"
                f" which {share:.0%} agree"
            )
        for name, seconds in spreads(take_turns(programs, rounds)).items():
            speed[name][number] = number / seconds.median
    height, width = picture["image"].shape[1:]
    return Growth("pictures in a batch", f"pictures of {height} x {width} a second", dict(speed))


def growth_with_size(cfg: CfgNode, config_file: str, opts: Sequence[str]) -> Growth:
    """The largest memory of training, in a process for each side."""
    largest = max(cfg.INPUT.MIN_SIZE_TRAIN)
    sides = [int(largest * scale) for scale in SCALES]
    memory = {}
    for name in (STOCK, OURS, OURS_BF16):
        peaks = run_apart("growth", name, [json.dumps(sides), config_file, *opts])
        memory[name] = dict(zip(sides, json.loads(peaks), strict=True))
    return Growth("short side, pixels", f"GB to train, {cfg.SOLVER.IMS_PER_BATCH} pictures", memory)


def growth_with_images(numbers: Sequence[int]) -> Growth:
    """Seconds of evaluating masks, without loading; each side once."""
    seconds: dict[str, dict[int, float]] = defaultdict(dict)
    for number in numbers:
        for name, took in evaluation.seconds_of_masks(number).items():
            seconds[name][number] = took
    return Growth("pictures", "seconds to evaluate their masks", dict(seconds))


def growth_with_workers(cfg: CfgNode, records: Sequence[dict]) -> Growth:
    """Pictures a second of a training loader, from the first batches on."""
    speed: dict[str, dict[int, float]] = defaultdict(dict)
    for number in WORKERS:
        keys = with_keys(cfg, "DATALOADER.NUM_WORKERS", number)
        stock = build_detection_train_loader(
            dataset=list(records),
            mapper=DatasetMapper(keys, is_train=True),
            total_batch_size=keys.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=keys.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=number,
        )
        ours = build_train_loader(keys, records, seed=0)
        for name, loader in ((STOCK, stock), (OURS, ours)):
            seconds = _seconds_of(iter(loader))
            speed[name][number] = LOADED * keys.SOLVER.IMS_PER_BATCH / seconds
    return Growth("workers", "pictures loaded a second", dict(speed))


def growth_with_processes(cfg: CfgNode, config_file: str, opts: Sequence[str]) -> Growth:
    """Pictures a second of the whole program, which share the recipe's batch; of this project only.

    Detectron2 0.6 trains in several processes on GPUs only. There are as many processes as GPUs at
    most, and each has a whole number of pictures.
    """
    speed: dict[str, dict[int, float]] = defaultdict(dict)
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    most = torch.cuda.device_count() if on_gpu else max(PROCESSES)
    batch, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    for number in PROCESSES:
        if number > most or batch % (number * parts):
            continue
        for name in (OURS, OURS_BF16):
            speed[name][number] = batch / _seconds_a_step(
                number, name == OURS_BF16, config_file, opts
            )
    return Growth("processes", f"pictures trained a second, {batch} in all a step", dict(speed))


def _seconds_a_step(number: int, in_bfloat16: bool, config_file: str, opts: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = ["train_net.py", "--num-gpus", str(number)]
        command += ["--config-file", config_file or str(DEFAULT_RECIPE), *opts]
        command += ["OUTPUT_DIR", folder, "DATASETS.TEST", "()", "MODEL.WEIGHTS", ""]
        command += ["SOLVER.MAX_EPOCH", "0", "SOLVER.MAX_ITER", str(TRAINED)]
        command += ["SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.AMP.ENABLED", str(in_bfloat16)]
        run_command(f"growth: training with {number} process(es)", command)
        lines = (Path(folder) / "metrics.json").read_text().splitlines()
        return json.loads(lines[-1])["time"]  # the median of the last twenty


def _seconds_of(batches: Iterator) -> float:
    next(batches)  # workers start
    start = perf_counter()
    for _ in islice(batches, LOADED):
        pass
    return perf_counter() - start


def report_growth(results: Sequence[Growth]) -> str:
    """A table of each."""
    tables = []
    for growth in results:
        xs = next(iter(growth.values.values()))
        rows = [[x, *(ys[x] for ys in growth.values.values())] for x in xs]
        table = tabulate(rows, [growth.x, *growth.values], floatfmt=".2f")
        tables.append(f"{growth.y}\n{table}")
    return "\n\n".join(tables)


def draw_growth(results: Sequence[Growth], path: Path) -> None:
    """Draw a panel of each into an SVG or PNG file."""
    # Here, for the other benchmarks do not need it and would wait for it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9.5), layout="constrained")
    panels = figure.subplots(3, 2).flat
    for axes in panels[len(results) :]:
        axes.remove()
    for growth, axes in zip(results, panels, strict=False):
        for name, values in growth.values.items():
            axes.plot([*values], [*values.values()], "o-", label=name, markersize=4)
        axes.set(xlabel=growth.x, ylabel=growth.y)
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _train_at(
    name: str, sides: Sequence[int], cfg: CfgNode, records: Sequence[dict]
) -> list[float]:
    """The memory, in GB, that this process has needed after a step at each size, rising."""
    cfg = config_of(cfg, name)
    seed_generators(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    device = model.device.type
    peaks = []
    for side in sides:
        keys = with_keys(cfg, "INPUT.MIN_SIZE_TRAIN", (side,), "INPUT.MAX_SIZE_TRAIN", 2 * side)
        mapper = build_mapper(keys, is_train=True)
        batch = [mapper(record) for record in records[: cfg.SOLVER.IMS_PER_BATCH]]
        with EventStorage(), torch.autocast(device, torch.bfloat16, enabled=name == OURS_BF16):
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        peaks.append(peak_memory_of_device(device)[0] / 1e9)
    return peaks


@reports_user_errors
def _main(name: str, sides: str, config_file: str, opts: list[str]) -> None:
    print(json.dumps(_train_at(name, json.loads(sides), *load_recipe(config_file, opts))))


if __name__ == "__main__":
    _main(*sys.argv[1:4], sys.argv[4:])
