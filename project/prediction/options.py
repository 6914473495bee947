"""Options of programs that load a checkpoint with a ``Predictor``."""

import argparse


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a checkpoint is to be understood, where it does not say so itself."""
    parser.add_argument("--config-file", default="", help="instead of the checkpoint's own")
    parser.add_argument("--categories", default="", metavar="JSON", help="for a checkpoint without")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config keys")
