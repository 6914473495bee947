"""Fixtures: a small generated data set, and a model small enough for a test."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers import SHARED, load_small_config, train_small

# How long an example takes says how busy the machine is.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


@pytest.fixture(scope="session")
def generated_root(tmp_path_factory) -> Path:
    """A generated data set in the tiny-VOC layout: 12 + 6 pictures."""
    from project.data.synthetic import generate_dataset

    root = tmp_path_factory.mktemp("generated")
    generate_dataset(root, num_train=12, num_test=6, seed=7)
    return root


@pytest.fixture(scope="session")
def seeded_checkpoint(generated_root, tmp_path_factory) -> Path:
    """A checkpoint of the small recipe with random weights; it is not to be changed."""
    import torch
    from detectron2.modeling import build_model

    from project.data.categories import read_categories
    from project.data.coco_json import read_coco_json

    opts = ["MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(generated_root)]
    opts += ["INPUT.MIN_SIZE_TEST", "96", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    opts += ["MODEL.INFERENCE_DTYPE", "float32"]
    cfg = load_small_config(opts)
    torch.manual_seed(5)
    model = build_model(cfg)
    for predictor in model.roi_heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.3)  # so that scores differ
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=1.0)
    path = tmp_path_factory.mktemp("seeded") / "model.pth"
    json_file = generated_root / "pascal_train.json"
    categories = read_categories(read_coco_json(json_file), json_file).to_mapping()
    content = {"model": model.state_dict(), "config": cfg.dump(), "categories": categories}
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def exported(seeded_checkpoint, generated_root, tmp_path_factory) -> Path:
    """``seeded_checkpoint`` as an ONNX file, exported by the program; it is not to be changed."""
    from scripts import export_model

    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    arguments = ["--weights", str(seeded_checkpoint), "--output", str(path)]
    export_model.main(
        [*arguments, "--check-on", str(min((generated_root / "test_images").iterdir()))]
    )
    return path


@pytest.fixture(scope="session")
def trained(generated_root, tmp_path_factory) -> Path:
    """A short run of the small recipe; it is not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train_small(generated_root, output)
    return output


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
