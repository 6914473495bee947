"""What a benchmark works on."""

from collections.abc import Sequence

from detectron2.config import CfgNode

from project.config import load_config
from project.data.datasets import register_training_sets
from project.data.loading import training_records


def load_recipe(config_file: str, opts: Sequence[str]) -> tuple[CfgNode, list[dict]]:
    """A recipe with the classes of its data, and the records of its training pictures."""
    cfg = load_config(config_file, opts)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(register_training_sets(cfg).ids)
    return cfg, training_records(cfg)
