#!/usr/bin/env python
"""Find objects in pictures and videos: pictures with masks, and a COCO JSON.

python scripts/predict.py --weights output/demo/latest.pth data/generated/test_images
python scripts/predict.py --weights latest.pth street.jpg holidays/ 'more/*.png' clip.mp4
python scripts/predict.py --weights model.onnx street.jpg
find . -name '*.jpg' | python scripts/predict.py --weights latest.pth - --masks --crops

A folder stands for all pictures and videos in it, "-" for a list of names on the standard input.
An ONNX file of scripts/export_model.py needs neither torch nor Detectron2.
What cannot be read is named and left out; the exit code is then 1.
"""

import argparse
import errno
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from project.dependencies import require_detectron2, require_package
from project.errors import UserError, reports_user_errors
from project.prediction.options import add_checkpoint_options
from project.runtime import is_exported


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, glob, video or -")
    parser.add_argument("--weights", required=True, help="a checkpoint, or an ONNX file")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="FOLDER",
        help="default: predictions",
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a FOLDER with files")
    parser.add_argument("--score", type=float, default=0.5, help="least certainty (default: 0.5)")
    parser.add_argument("--tta", action="store_true", help="also look at other sizes, and flipped")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once (default: 1)")
    parser.add_argument("--masks", action="store_true", help="write label masks, as PNG")
    parser.add_argument("--crops", action="store_true", help="write each object, cut out, as PNG")
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    add_checkpoint_options(parser)
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    load = _load_onnx if is_exported(args.weights) else _load_checkpoint
    from tqdm import tqdm

    from project.files import make_folder, require_new_folder
    from project.prediction.inputs import find_sources
    from project.prediction.outputs import PredictionWriter

    if args.batch < 1:
        raise UserError(f"--batch {args.batch}: choose 1 or more")
    if not args.overwrite:
        require_new_folder(args.output)
    sources = find_sources(_names(args.paths), args.output)
    make_folder(args.output, "--output")
    predictor = load(args)
    writer = PredictionWriter(
        args.output,
        predictor.categories,
        pictures=not args.no_pictures,
        masks=args.masks,
        crops=args.crops,
    )
    unreadable: list[UserError] = []
    total = sum(source.count() for source in sources)
    with writer, tqdm(total=total, unit="picture", mininterval=1) as progress:
        for batch in _batches(sources, args.batch, unreadable):
            for (source, frame, image), detections in _detect(predictor, batch, unreadable):
                try:
                    writer.write(source, frame, image, detections)
                except UserError as error:
                    _keep_unless_hopeless(error, unreadable)
            progress.update(len(batch))
    print(
        f"{writer.number_of_detections} objects in {writer.number_of_pictures} pictures:"
        f" {args.output}"
    )
    if unreadable:
        print(f"{len(unreadable)} left out:", *unreadable, sep="\n  ", file=sys.stderr)
        sys.exit(1)


def _keep_unless_hopeless(error: UserError, unreadable: list[UserError]) -> None:
    """A file that cannot be written is left out; where none can be, there is no use in going on."""
    reason = getattr(error.__cause__, "errno", None)
    if reason in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        raise error
    if str(error) not in map(str, unreadable[-1:]):  # each frame of a video says so
        unreadable.append(error)


def _load_checkpoint(args: argparse.Namespace):
    require_detectron2()
    from project.prediction.predictor import Predictor

    return Predictor(
        args.weights,
        config_file=args.config_file,
        opts=args.opts,
        score_threshold=args.score,
        test_time_augmentation=args.tta,
        categories_json=args.categories,
    )


def _load_onnx(args: argparse.Namespace):
    refused = {
        "--tta": args.tta,
        "--config-file": args.config_file,
        "--categories": args.categories,
        "--opts": args.opts,
    }
    for option, value in refused.items():
        if value:
            raise UserError(f"{option} needs a checkpoint; {args.weights} is as it was exported")
    require_package("onnxruntime")
    from project.runtime import load

    return load(args.weights, score_threshold=args.score)


def _names(paths: list[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            if hasattr(sys.stdin, "reconfigure"):
                sys.stdin.reconfigure(errors="surrogateescape")  # names need be no UTF-8
            lines = (line.strip("\r\n\ufeff") for line in sys.stdin)  # as Windows ends and begins
            yield from filter(None, lines)
        else:
            yield path


def _batches(sources, size: int, unreadable: list[UserError]) -> Iterator[tuple]:
    """Up to ``size`` of (source, number of the frame, picture)."""
    from tqdm import tqdm

    def frames() -> Iterator[tuple]:
        for source in sources:
            try:
                for number, image in enumerate(source.frames()):
                    yield source, number, image
            except UserError as error:
                unreadable.append(error)
                continue
            expected = source.count()
            if number + 1 < expected:
                tqdm.write(
                    f"warning: {source.path} should have {expected} frames, but only"
                    f" {number + 1} can be read (cut off?)",
                    file=sys.stderr,
                )

    stream = frames()
    while batch := tuple(islice(stream, size)):
        yield batch


def _detect(predictor, batch: tuple, unreadable: list[UserError]) -> Iterator[tuple]:
    """Those of a batch that the model can take, each with its detections."""
    try:
        found = predictor.predict([image for _, _, image in batch])
    except UserError as error:
        if len(batch) == 1:
            unreadable.append(UserError(f"{batch[0][0].path}: {error}"))
        else:
            for item in batch:
                yield from _detect(predictor, (item,), unreadable)
        return
    yield from zip(batch, found, strict=True)


if __name__ == "__main__":
    # What is done is written then, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
