#!/usr/bin/env python
"""Write a trained model as one ONNX file, which runs without torch and Detectron2.

python scripts/export_model.py --weights output/demo/latest.pth --output model.onnx
python scripts/predict.py --weights model.onnx street.jpg

The file takes a picture as a decoder gives it (RGB, uint8, of any size) and gives objects in its
pixels. It is run beside the model on some pictures before this program ends; where they disagree,
it fails.
"""

import argparse
from pathlib import Path

from project.dependencies import require_detectron2, require_package
from project.errors import UserError, reports_user_errors

# Height and width of the generated pictures: small, large, and of other shapes than the trace's.
CHECK_SIZES = ((32, 32), (480, 640), (375, 500), (900, 300), (1200, 1600))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="a checkpoint; it holds its config")
    parser.add_argument("--output", required=True, type=Path, help="the ONNX file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT")
    parser.add_argument("--score", type=float, help="least certainty (default: the recipe's)")
    parser.add_argument("--max-detections", type=int, metavar="N", help="of a picture")
    parser.add_argument(
        "--check-on", nargs="+", default=[], metavar="PATH", help="instead of generated pictures"
    )
    parser.add_argument("--config-file", default="", help="instead of the checkpoint's own")
    parser.add_argument("--categories", default="", metavar="JSON", help="for a checkpoint without")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config keys")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    for package in ("onnx", "onnxruntime"):
        require_package(package)
    import numpy as np
    from tqdm import tqdm

    from project.export.checking import Limits, check_pictures, compare
    from project.export.graph import score_threshold_of
    from project.export.onnx_file import export_onnx
    from project.files import check_output_file
    from project.layers.stable_sort import StableSort
    from project.prediction.inputs import find_sources
    from project.prediction.predictor import Predictor
    from project.runtime.detector import OnnxDetector

    check_output_file(args.output, args.overwrite)
    opts = [*args.opts, "MODEL.DEVICE", "cpu", "MODEL.INFERENCE_DTYPE", "float32"]
    opts += ["TEST.AUG.ENABLED", "False"]
    if args.max_detections is not None:
        if args.max_detections < 1:
            raise UserError(f"--max-detections {args.max_detections}: choose 1 or more")
        opts += ["TEST.DETECTIONS_PER_IMAGE", str(args.max_detections)]
    sources = find_sources(args.check_on) if args.check_on else []
    predictor = Predictor(
        args.weights,
        config_file=args.config_file,
        opts=opts,
        score_threshold=args.score,
        categories_json=args.categories,
    )
    cfg = predictor.cfg
    export_onnx(predictor.model, cfg, predictor.categories, args.output)
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}: {size:.0f} MB, {len(predictor.categories.ids)} classes")

    generated = check_pictures(CHECK_SIZES)
    given = (frame for source in sources for frame in source.frames())
    # At the recipe's least score, then with as many detections as there can be.
    least_score = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    for threshold, pictures in (
        (least_score, given if sources else generated),
        (0.0, [max(generated, key=np.size)]),
    ):
        limits = Limits(
            threshold, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
        )
        detector = OnnxDetector(args.output, score_threshold=threshold)
        # ONNX sorts so; without it, Detectron2's own RPN takes any of equally certain proposals.
        with score_threshold_of(predictor.model, threshold), StableSort():
            agreement = compare(predictor, detector, tqdm(pictures, leave=False), limits)
        print(f"checked against PyTorch, scores from {threshold}: {agreement}")
        if not agreement.is_close:
            raise UserError(f"{args.output} does not find what {args.weights} finds; do not use it")


if __name__ == "__main__":
    main()
