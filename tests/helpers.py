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
