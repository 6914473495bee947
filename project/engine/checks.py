"""What is checked before a job of ``train_net.py`` starts."""

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from project.checkpoint.reading import (
    class_names,
    find_weights,
    newest_checkpoint,
    read_checkpoint,
    read_description,
)
from project.data.categories import Categories
from project.data.datasets import (
    dataset_files,
    evaluable_sets,
    has_annotations,
    register_datasets,
    require_dataset,
    require_sound,
    require_trainable,
    resolve_categories,
    sets_with_annotations,
    warn_of_common_pictures,
)
from project.data.loading import require_divisible_batch
from project.data.mapper import build_mapper
from project.engine.job import Job
from project.engine.output_dir import files_to_replace
from project.engine.trainer import iou_types
from project.errors import UserError
from project.evaluation.coco_metrics import SUMMARY
from project.files import check_output_file
from project.values import require_sound_model, require_sound_values

logger = logging.getLogger(__name__)


def check(cfg: CfgNode, job: Job, num_processes: int) -> list[Path]:
    """Check in seconds all that could stop the job later; complete ``cfg`` from the data.

    Sets ``MODEL.ROI_HEADS.NUM_CLASSES``.

    Args:
        num_processes: that will do the job together, on all machines.

    Returns:
        The files of a run in ``OUTPUT_DIR`` that is to be replaced.

    Raises:
        UserError: see the functions called.
    """
    require_sound_model(cfg)
    if job.resume:
        newest_checkpoint(cfg.OUTPUT_DIR)
    elif job.eval_only and not cfg.MODEL.WEIGHTS:
        raise UserError("--eval-only needs MODEL.WEIGHTS FILE at the end of the command")
    if job.submission:
        check_output_file(job.submission, job.overwrite)
        name = submission_set(cfg)
        _require_sound(cfg, name)
    elif job.eval_only:
        if not cfg.DATASETS.TEST:
            raise UserError("--eval-only: DATASETS.TEST names no data set")
        if not evaluable_sets(cfg):
            _require_annotations(cfg, cfg.DATASETS.TEST[0], "DATASETS.TEST")
        _check_test_sets(cfg)
    else:
        require_sound_values(cfg)
        build_mapper(cfg, is_train=True)  # for what it refuses
        # With a reference, the batch grows with the processes.
        require_divisible_batch(cfg, cfg.SOLVER.REFERENCE_WORLD_SIZE or num_processes)
        for name in cfg.DATASETS.TRAIN:
            _require_annotations(cfg, name, "DATASETS.TRAIN")
            require_trainable(cfg, name)
        _check_test_sets(cfg)
        warn_of_common_pictures(cfg)
    categories = categories_of_job(cfg, job)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories.ids)
    register_datasets(cfg, categories)
    if not job.eval_only:
        _require_best_metric(cfg, categories)
        return files_to_replace(cfg, resume=job.resume, overwrite=job.overwrite)
    return []


def forget_submission_set(cfg: CfgNode, job: Job) -> None:
    """Let ``DATASETS.TEST``, which the user has named, be what is exported.

    A training that evaluates on a part of the recipe's own pictures goes on to export what the
    recipe says.
    """
    if job.submission or any(name.startswith("custom") for name in cfg.DATASETS.TEST):
        cfg.DATASETS.SUBMISSION = ""


def submission_set(cfg: CfgNode) -> str:
    """The data set that ``--format-only`` exports."""
    if cfg.DATASETS.SUBMISSION:
        return cfg.DATASETS.SUBMISSION
    if len(cfg.DATASETS.TEST) != 1:
        raise UserError(
            f"--format-only writes one data set; DATASETS.TEST has {len(cfg.DATASETS.TEST)}: name"
            " one with DATASETS.SUBMISSION"
        )
    return cfg.DATASETS.TEST[0]


def categories_of_job(cfg: CfgNode, job: Job) -> Categories:
    """The categories of the data and, where they say so, of the weights."""
    path = newest_checkpoint(cfg.OUTPUT_DIR) if job.resume else cfg.MODEL.WEIGHTS
    stored = {}
    if path:
        # Training goes on with tensors, which an exported model has not.
        read = read_description if job.eval_only else read_checkpoint
        stored = read(find_weights(path, cfg.OUTPUT_DIR))
    must_agree = job.eval_only or job.resume
    categories = resolve_categories(cfg, stored.get("categories"), must_agree=must_agree)
    names = class_names(stored)
    if must_agree and names is not None and names != categories.names:
        raise UserError(
            f"MODEL.WEIGHTS {path} was trained on {_first_names(names)}, but the data set has"
            f" {_first_names(categories.names)}: the classes must be the same, in the order of the"
            " category ids"
        )
    return categories


def _require_best_metric(cfg: CfgNode, categories: Categories) -> None:
    """``TEST.BEST_METRIC`` is among what evaluation finds, if there is an evaluation."""
    keys = [*SUMMARY, *(f"AP-{name}" for name in categories.unique_names.values())]
    metrics = [f"{iou_type}/{key}" for iou_type in iou_types(cfg) for key in keys]
    if evaluable_sets(cfg) and cfg.TEST.BEST_METRIC not in metrics:
        raise UserError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}; choose one of {', '.join(metrics[:6])},"
            " ... (bbox are boxes; segm are masks, where MODEL.MASK_ON is True)"
        )


def _first_names(names: Sequence[str], shown: int = 4) -> str:
    return f"{len(names)} classes ({', '.join(names[:shown])}{', ...' * (len(names) > shown)})"


def _require_sound(cfg: CfgNode, name: str) -> None:
    require_sound(require_dataset(cfg, name), cfg.DATASETS.SKIP_BAD)


def _require_annotations(cfg: CfgNode, name: str, key: str) -> None:
    if has_annotations(require_dataset(cfg, name)):
        return
    others = sets_with_annotations(cfg, dataset_files(cfg))
    which = f"those with annotations are: {', '.join(others)}" if others else "no other set has any"
    without = "; --format-only FILE writes a submission without them"
    raise UserError(
        f"data set {name!r} has no annotations; {which} (choose with {key}"
        f"{without if key == 'DATASETS.TEST' else ''})"
    )


def _check_test_sets(cfg: CfgNode) -> None:
    """Check what of ``DATASETS.TEST`` has annotations; log what has none, refuse what is no set."""
    usable = evaluable_sets(cfg)
    known = dataset_files(cfg)
    for name in cfg.DATASETS.TEST:
        if name in usable:
            continue
        if name not in known:
            require_dataset(cfg, name)  # says so
        json_file = known[name].json_file
        if name == "custom_test" and not json_file.is_file():
            raise UserError(f"DATASETS.TEST_JSON: there is no file {str(json_file)!r}")
        why = f"{json_file} has no annotations" if json_file.is_file() else f"no file {json_file}"
        logger.warning(
            f"No evaluation on {name}: {why} (scripts/split_dataset.py sets a part"
            " of the training set aside)"
        )
    for name in usable:
        _require_sound(cfg, name)
