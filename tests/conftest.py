"""Fixtures: a small generated data set, and a model small enough for a test."""

from pathlib import Path

import pytest

from tests.helpers import SHARED


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
