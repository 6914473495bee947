"""Paths, and the small recipe ready for use."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_CONFIG = REPOSITORY / "configs/tiny_voc/cascade_mask_rcnn_effnet_lite0_fpn_cpu.yaml"
FULL_CONFIG = REPOSITORY / "configs/tiny_voc/cascade_mask_rcnn_resnest50_fpn.yaml"
SHARED = REPOSITORY.parent / "shared"


def load_small_config(opts: list[str]):
    """The small recipe, with its data sets registered."""
    from project.config import load_config
    from project.data.datasets import register_datasets, resolve_categories

    cfg = load_config(str(SMALL_CONFIG), opts, default_config=str(FULL_CONFIG))
    categories = resolve_categories(cfg, None, must_agree=False)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories.ids)
    register_datasets(cfg, categories)
    return cfg


def run_pairs(root: Path, output: Path) -> list[str]:
    """KEY VALUE pairs that let the small recipe run in seconds."""
    return [
        *("MODEL.DEVICE", "cpu"),
        *("DATASETS.ROOT", str(root)),
        *("OUTPUT_DIR", str(output)),
        *("INPUT.MIN_SIZE_TRAIN", "(96,)"),
        *("INPUT.MIN_SIZE_TEST", "96"),
        *("SOLVER.IMS_PER_BATCH", "2"),
        *("SOLVER.MAX_ITER", "3"),
        *("SOLVER.CHECKPOINT_PERIOD", "2"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
        *("TEST.DETECTIONS_PER_IMAGE", "5"),
        *("SEED", "1"),
    ]


def train_small(root: Path, output: Path, *options: str) -> None:
    """A run of the small recipe in ``output``."""
    import train_net

    train_net.main(["--config-file", str(SMALL_CONFIG), *options, *run_pairs(root, output)])


def refused(arguments: list[str], capsys) -> str:
    """The one line with which the program ends."""
    import pytest

    import train_net

    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        train_net.main(arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0], lines
    return errors[0]


def share_of_partners(annotations: list[dict], others: list[dict]) -> float:
    """Of COCO annotations, how many have one of the same mask, class and picture among others."""
    from pycocotools import mask as coco_mask

    masks = [[a["segmentation"] for a in side] for side in (annotations, others)]
    iou = coco_mask.iou(*masks, [0] * len(others))
    partners = 0
    for annotation, row in zip(annotations, iou, strict=True):
        partners += any(
            value > 0.99
            and other["category_id"] == annotation["category_id"]
            and other["image_id"] == annotation["image_id"]
            for value, other in zip(row, others, strict=True)
        )
    return partners / len(annotations)
