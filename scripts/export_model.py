#!/usr/bin/env python
"""Write a trained model as one ONNX file, which runs without torch and Detectron2.

python scripts/export_model.py --weights output/demo/latest.pth --output model.onnx
python scripts/predict.py --weights model.onnx street.jpg

The file takes a picture as a decoder gives it (RGB, uint8, of any size) and gives objects in its
pixels. It is run beside the model on some pictures before this program ends; where they disagree,
it fails.
"""

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path

from project.dependencies import require_detectron2, require_package
from project.errors import UserError, reports_user_errors
from project.prediction.options import add_checkpoint_options
from project.runtime import is_exported

# Height and width of the generated pictures: small, large, and of other shapes than the trace's.
CHECK_SIZES = ((32, 32), (480, 640), (375, 500), (900, 300), (1200, 1600))

MAX_PICTURES = 100  # to check or calibrate on
MIN_FOUND_SCORE = 0.05  # of what counts as found
MIN_SHARE = 0.5  # of the objects of the model, that float16 or int8 has to find


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="a checkpoint; it holds its config")
    parser.add_argument("--output", required=True, type=Path, help="the ONNX file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT")
    parser.add_argument("--score", type=float, help="least certainty (default: the recipe's)")
    parser.add_argument(
        "--max-detections", type=int, metavar="N", help="objects in a picture, at most"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--half", action="store_true", help="compute in float16, for GPUs; half as large a file"
    )
    precision.add_argument(
        "--int8",
        nargs="+",
        default=[],
        metavar="PATH",
        help="compute in int8, calibrated on these pictures: some tens of the kind to look at",
    )
    parser.add_argument(
        "--check-on",
        nargs="+",
        default=[],
        metavar="PATH",
        help="check the file on these pictures (default: generated ones)",
    )
    add_checkpoint_options(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    for package in ("onnx", "onnxruntime"):
        require_package(package)
    from project.export.onnx_file import export_onnx
    from project.files import check_output_file
    from project.prediction.inputs import find_sources
    from project.prediction.predictor import Predictor

    if not is_exported(str(args.output)):
        raise UserError(f"--output {args.output}: exported models are known by their suffix, .onnx")
    check_output_file(args.output, args.overwrite)
    opts = [*args.opts, "MODEL.DEVICE", "cpu", "MODEL.INFERENCE_DTYPE", "float32"]
    opts += ["TEST.AUG.ENABLED", "False"]
    if args.max_detections is not None:
        if args.max_detections < 1:
            raise UserError(f"--max-detections {args.max_detections}: choose 1 or more")
        opts += ["TEST.DETECTIONS_PER_IMAGE", str(args.max_detections)]
    check_on, calibrate_on = (
        find_sources(paths) if paths else [] for paths in (args.check_on, args.int8)
    )
    predictor = Predictor(
        args.weights,
        config_file=args.config_file,
        opts=opts,
        score_threshold=args.score,
        categories_json=args.categories,
    )
    # Under another name, until it is known to find what the model finds.
    unchecked = args.output.with_name(f"{args.output.name}.unchecked.onnx")
    try:
        export_onnx(predictor.model, predictor.cfg, predictor.categories, unchecked)
        _check(predictor, unchecked, check_on)
        if args.half:
            _convert_to_half(predictor, unchecked, check_on)
        if calibrate_on:
            _quantize(predictor, unchecked, calibrate_on)
        unchecked.replace(args.output)
    finally:
        unchecked.unlink(missing_ok=True)
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {size:.0f} MB, {len(predictor.categories.ids)} classes")


def _check(predictor, path: Path, sources: list) -> None:
    """Compare at the recipe's least score, then with as many detections as there can be."""
    import numpy as np
    from tqdm import tqdm

    from project.export.checking import Limits, check_pictures, compare
    from project.export.graph import score_threshold_of
    from project.layers.stable_sort import StableSort
    from project.runtime.detector import OnnxDetector

    cfg = predictor.cfg
    generated = check_pictures(CHECK_SIZES)
    for threshold, pictures in (
        (cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, _Frames(sources) if sources else generated),
        (0.0, [max(generated, key=np.size)]),
    ):
        limits = Limits(
            threshold, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
        )
        detector = OnnxDetector(path, score_threshold=threshold)
        # ONNX sorts so; without it, Detectron2's own RPN takes any of equally certain proposals.
        with score_threshold_of(predictor.model, threshold), StableSort():
            agreement = compare(predictor, detector, tqdm(pictures, leave=False), limits)
        print(f"checked against PyTorch, scores from {threshold}: {agreement}")
        if not agreement.is_close:
            weights = cfg.MODEL.WEIGHTS
            raise UserError(f"the file does not find what {weights} finds; it is not written")


def _convert_to_half(predictor, path: Path, sources: list) -> None:
    """Make the file a float16 one, and say how many objects it loses."""
    from project.export.checking import check_pictures
    from project.export.half_precision import convert_to_half

    layers = convert_to_half(path)
    pictures = _Frames(sources) if sources else check_pictures(CHECK_SIZES)
    what, advice = f"{layers} layers in float16", "this model needs float32"
    _check_share(predictor, path, pictures, what, advice)


def _quantize(predictor, path: Path, sources: list) -> None:
    """Make the file an int8 one, and say how many objects it loses on what it was calibrated on."""
    from tqdm import tqdm

    from project.export.quantization import quantize

    pictures = _Frames(sources)
    layers = quantize(path, tqdm(pictures, desc="calibrating", leave=False))
    what = f"{layers} layers in int8, calibrated on {len(pictures)} pictures"
    _check_share(predictor, path, pictures, what, "calibrate on more such pictures")


def _check_share(predictor, path: Path, pictures: Collection, what: str, advice: str) -> None:
    from tqdm import tqdm

    from project.export.checking import share_kept
    from project.runtime.detector import OnnxDetector

    own = predictor.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    found = OnnxDetector(path, score_threshold=min(MIN_FOUND_SCORE, own))
    for score in (max(0.5, own), own):  # a model that was trained briefly is certain of nothing
        share, number = share_kept(predictor, found, tqdm(pictures, leave=False), score)
        if number:
            break
    else:
        raise UserError(
            f"{what}: the model finds no object on the pictures that it is checked on: nothing is"
            " known about the file, and it is not written; name others (--check-on; with --int8"
            " those to calibrate on)"
        )
    print(f"{what}: of {number} objects there with scores from {score:g}, {share:.1%} are found")
    if share < MIN_SHARE:
        raise UserError(f"so it finds less than {MIN_SHARE:.0%}, and is not written; {advice}")


class _Frames:
    """The first pictures of up to :data:`MAX_PICTURES` sources, evenly spread, read as needed."""

    def __init__(self, sources: list):
        number = min(len(sources), MAX_PICTURES)
        self._sources = [sources[i * len(sources) // number] for i in range(number)]

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator:
        return (next(source.frames()) for source in self._sources)


if __name__ == "__main__":
    main()
