"""The exported model against the models of torch, from the file of a picture to masks as RLE."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from project.benchmark.detection import (
    MIN_FOUND,
    build_detectors,
    detection_programs,
    share_found,
)
from project.benchmark.model import SECONDS_HEADERS, seconds_rows
from project.benchmark.timing import OURS, STOCK, Spread, ratio, spreads, take_turns
from project.data.mapper import build_mapper
from project.data.reading import read_image
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from project.export.onnx_file import export_onnx
from project.export.quantization import quantize
from project.runtime.detector import OnnxDetector

ONNX, ONNX_INT8 = "ONNX file", "ONNX file, int8"


@dataclass(frozen=True)
class ExportBenchmark:
    """Seconds of one picture.

    Attributes:
        what: the picture, in words.
        agreement: how near the answers are, in words.
        load: seconds from the file to a detector that is ready.
        seconds: of each program.
        ratios: how many times as fast as Detectron2 each other program is.
    """

    what: str
    agreement: str
    load: Spread
    seconds: dict[str, Spread]
    ratios: dict[str, Spread]


def report_export(result: ExportBenchmark) -> str:
    """The figures as a table."""
    table = tabulate(seconds_rows(result.seconds, result.ratios), SECONDS_HEADERS)
    return f"{result.what}\n{result.agreement}\nthe file is loaded in {result.load} s\n\n{table}"


def benchmark_export(cfg: CfgNode, record: Mapping, rounds: int) -> ExportBenchmark:
    """Weights are seeded; with a score threshold of 0 each side gives as many detections as it may.

    Raises:
        UserError: the file does not find what the model finds.
    """
    cfg, models, categories = build_detectors(cfg)
    mapper = build_mapper(cfg, is_train=False)
    programs = detection_programs(models, lambda: [mapper(record)], categories)

    def onnx_program(detector: OnnxDetector) -> Callable[[], list[dict]]:
        return lambda: to_coco_results(detector(read_image(record["file_name"])), 0)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        models[OURS].inference_dtype = "float32"
        export_onnx(models[OURS], cfg, categories, path)

        def load() -> OnnxDetector:
            return OnnxDetector(path, threads=torch.get_num_threads())

        load_time = Spread.of(take_turns({ONNX: load}, rounds)[ONNX])
        programs[ONNX] = onnx_program(load())
        quantize(path, [read_image(record["file_name"])])
        programs[ONNX_INT8] = onnx_program(load())

    expected, found = programs[OURS](), programs[ONNX]()
    share = share_found(expected, found)
    if share < MIN_FOUND or len(expected) != len(found):
        raise UserError(
            f"export: {len(expected)} and {len(found)} detections, of which {share:.0%} agree"
        )
    agreement = (
        f"{len(found)} detections; in float32, {share:.0%} of the model's are the file's too"
        " (class, score within 1e-4, box within 0.02 pixels, IoU of masks 0.99)"
    )
    seconds = take_turns(programs, rounds)
    return ExportBenchmark(
        f"one picture of {record['height']} x {record['width']}",
        agreement,
        load_time,
        spreads(seconds),
        {name: ratio(seconds, STOCK, name) for name in programs if name != STOCK},
    )
