"""Fixtures: a small generated data set, and a model small enough for a test."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_CONFIG = REPOSITORY / "configs/tiny_voc/cascade_mask_rcnn_effnet_lite0_fpn_cpu.yaml"
FULL_CONFIG = REPOSITORY / "configs/tiny_voc/cascade_mask_rcnn_resnest50_fpn.yaml"
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def generated_root(tmp_path_factory) -> Path:
    """A generated data set in the tiny-VOC layout: 12 + 6 pictures."""
    from project.data.synthetic import generate_dataset

    root = tmp_path_factory.mktemp("generated")
    generate_dataset(root, num_train=12, num_test=6, seed=7)
    return root


@pytest.fixture
def small_opts(generated_root, tmp_path) -> list[str]:
    """KEY VALUE pairs that let the small recipe run in seconds, in a directory of its own."""
    return [
        *("MODEL.DEVICE", "cpu"),
        *("DATASETS.ROOT", str(generated_root)),
        *("OUTPUT_DIR", str(tmp_path / "run")),
        *("INPUT.MIN_SIZE_TRAIN", "(96,)"),
        *("INPUT.MIN_SIZE_TEST", "96"),
        *("SOLVER.IMS_PER_BATCH", "2"),
        *("SOLVER.MAX_ITER", "2"),
        *("SEED", "1"),
    ]


@pytest.fixture
def shared() -> Path:
    """Real pictures and the original's submission, which are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("real pictures and the original's submission are not in the repository")
    return SHARED


def load_small_config(opts: list[str]):
    """The small recipe, with its data sets registered."""
    from project.config import load_config
    from project.data.datasets import register_datasets, resolve_categories

    cfg = load_config(str(SMALL_CONFIG), opts, default_config=str(FULL_CONFIG))
    categories = resolve_categories(cfg, None, must_agree=False)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories.ids)
    register_datasets(cfg, categories)
    return cfg
