"""A value that cannot be is one line with its key, before anything is built."""

import pytest

from project.config import load_config
from project.devices import resolve_devices
from project.engine.checks import forget_submission_set, submission_set
from project.engine.job import Job
from project.engine.run import prepare
from project.errors import UserError
from project.recipes import RECIPES
from project.values import require_sound_model, require_sound_values
from tests.helpers import load_small_config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosine"),
        ("SOLVER.WARMUP_METHOD", "exponential"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "l2"),
        ("SOLVER.BASE_LR", "-1.0"),
        ("SOLVER.BASE_LR", "0.0"),
        ("DATALOADER.REPEAT_THRESHOLD", "-0.1"),
        ("SOLVER.STEPS", "(5, 3)"),
        ("SOLVER.STEP_EPOCHS", "(2, 1)"),
        ("SOLVER.STEPS", "(3, 3)"),
        ("SOLVER.STEPS", "(0, 3)"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "ExtendedRPNs"),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.5, 0.6)"),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.4, 0.6, 0.7)"),
        ("SEED", str(2**32)),
        ("SOLVER.REFERENCE_WORLD_SIZE", "3"),
        ("MODEL.META_ARCHITECTURE", "RCNN"),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),  # with masks from 0.4
        ("MODEL.BACKBONE.NAME", "resnest50"),
        ("MODEL.ROI_HEADS.NAME", "CascadeHeads"),
        ("MODEL.FPN.NORM", "XN"),
        ("MODEL.ROI_BOX_HEAD.NORM", "XN"),
        ("DATALOADER.NUM_WORKERS", "-1"),
        ("DATASETS.TRAIN", "()"),
        ("DATASETS.TEST", "('tiny_voc_test_anotated',)"),
        ("TEST.EARLY_STOP_PATIENCE", "-1"),
        ("INPUT.FORMAT", "rgb"),
        ("INPUT.RANDOM_FLIP", "both"),
        ("INPUT.MIN_SIZE_TRAIN", "()"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "random"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
        ("INPUT.CROP.TYPE", "relativ"),
        ("INPUT.CROP.SIZE", "[1.5, 1.5]"),
        ("INPUT.CROP.TYPE", "absolute"),
        ("INPUT.CROP.SIZE", "[0.5]"),
    ],
)
def test_it_is_named(small_opts, key, value):
    cfg = load_small_config([*small_opts, "INPUT.CROP.ENABLED", "True"])
    cfg.merge_from_list(["MODEL.ROI_MASK_HEAD.THRESH_TEST", 0.4, key, value])
    name = "there is no data set" if key == "DATASETS.TEST" else key.removesuffix(".TYPE")
    with pytest.raises(UserError, match=name):
        prepare(cfg, Job(), num_processes=1)


def test_a_misspelt_test_set_of_ones_own_is_no_run_without_evaluation(small_opts):
    pairs = ["DATASETS.TEST", "('custom_test',)", "DATASETS.TEST_JSON", "test_anotations.json"]
    cfg = load_small_config([*small_opts, *pairs, "DATASETS.TEST_IMAGES", "test_images"])
    with pytest.raises(UserError, match=r"TEST_JSON: there is no file .*test_anotations\.json"):
        prepare(cfg, Job(), num_processes=1)


def test_a_key_below_a_value_is_one_line(small_opts):
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER\.X"):
        load_small_config([*small_opts, "SOLVER.MAX_ITER.X", "3"])


def test_a_model_that_cannot_be_is_one_line_in_evaluation_too(small_opts):
    cfg = load_small_config([*small_opts, "MODEL.ROI_HEADS.NAME", "CascadeHeads"])
    with pytest.raises(UserError, match=r"MODEL\.ROI_HEADS\.NAME"):
        prepare(cfg, Job(eval_only=True), num_processes=1)


@pytest.mark.parametrize(
    ("test", "job", "expected"),
    [
        ("tiny_voc_val", Job(), "tiny_voc_test"),  # a part of the training set, to evaluate on
        ("tiny_voc_val", Job(eval_only=True, submission="a.json"), "tiny_voc_val"),
        ("custom_test", Job(), "custom_test"),
    ],
)
def test_which_set_is_exported_where_a_test_set_is_named(test, job, expected):
    cfg = load_config("", ["DATASETS.TEST", f"('{test}',)"])
    assert submission_set(cfg) == "tiny_voc_test"
    forget_submission_set(cfg, job)
    assert submission_set(cfg) == expected


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:", "cuda:x", "cpu:0"])
def test_a_device_that_is_none(small_opts, device):
    cfg = load_small_config([*small_opts, "MODEL.DEVICE", device])
    with pytest.raises(UserError, match=r"MODEL\.DEVICE"):
        resolve_devices(cfg, None, device_is_given=True)


@pytest.mark.parametrize("recipe", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_are_sound(recipe):
    cfg = load_config(str(recipe), [], default_config=str(recipe))
    cfg.DATASETS.TRAIN = cfg.DATASETS.TRAIN or ("tiny_voc_train",)  # that of a base
    require_sound_model(cfg)
    require_sound_values(cfg)
