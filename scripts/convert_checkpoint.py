#!/usr/bin/env python
"""Rename a detector's tensors: mmdetection's, or the ResNeSt fork's, to Detectron2's, and back.

python scripts/convert_checkpoint.py latest.pth converted.pth
python scripts/convert_checkpoint.py output/run/latest.pth for_mmdetection.pth --to mmdetection

train_net.py loads all of them as they are; this is for other programs.
"""

import argparse
from pathlib import Path

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN", help="a checkpoint of any known format")
    parser.add_argument("output", metavar="OUT", type=Path, help="the checkpoint to write")
    parser.add_argument(
        "--to",
        choices=("detectron2", "mmdetection"),
        help="default: mmdetection for checkpoints of this project, detectron2 for others",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    import project.registration  # noqa: F401  (paths such as timm://)
    from project.checkpoint.conversion import CONVERSIONS, default_target
    from project.checkpoint.reading import find_weights, read_checkpoint
    from project.checkpoint.writing import save_atomically
    from project.files import check_output_file

    if args.output.suffix.lower() in (".safetensors", ".onnx"):
        raise UserError(f"{args.output}: what is written is a .pth file")
    check_output_file(args.output, args.overwrite)
    content = read_checkpoint(find_weights(args.input))
    target = args.to or default_target(content)
    try:
        converted = CONVERSIONS[target](content)
    except UserError as error:
        raise UserError(f"{args.input} cannot be converted to {target}: {error}") from error
    save_atomically(converted, args.output)
    tensors = converted["model" if target == "detectron2" else "state_dict"]
    print(f"{args.output}: {len(tensors)} tensors under the names of {target}")


if __name__ == "__main__":
    main()
