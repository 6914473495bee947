"""The three jobs of ``train_net.py``, and what is checked before any of them starts."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from project.checkpoint.checkpointer import Checkpointer
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
from project.engine.console import log_to_console, log_to_file
from project.engine.dry_run import dry_run
from project.engine.launch import OTHERS_ERROR_SECONDS
from project.engine.output_dir import claim_output_dir, files_to_replace, require_trainer
from project.engine.run_record import (
    is_claimed,
    is_finished,
    outlives_its_processes,
)
from project.engine.trainer import Trainer, iou_types
from project.errors import UserError
from project.evaluation.coco_metrics import SUMMARY
from project.evaluation.exported_model import ExportedModel, with_whole_pictures
from project.files import check_output_file
from project.runtime import is_exported
from project.values import require_sound_model, require_sound_values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to do with a config.

    Attributes:
        eval_only: evaluate ``MODEL.WEIGHTS`` instead of training.
        submission: path of the submission file to write instead of evaluating, "" for none.
        resume: go on from the newest checkpoint of ``OUTPUT_DIR``.
        overwrite: replace the run in ``OUTPUT_DIR``, or the submission file.
        dry_run: stop after a few iterations of training, and leave nothing behind.
    """

    eval_only: bool = False
    submission: str = ""
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    @property
    def trains(self) -> bool:
        """Whether it leaves a run in ``OUTPUT_DIR``."""
        return not (self.eval_only or self.dry_run)

    def __post_init__(self):
        if self.submission and not self.eval_only:
            raise UserError("--format-only needs --eval-only")
        if self.resume and (self.eval_only or self.overwrite):
            raise UserError("--resume goes with neither --eval-only nor --overwrite")
        if self.dry_run and (self.eval_only or self.resume):
            raise UserError("--dry-run goes with neither --eval-only nor --resume")


def prepare(cfg: CfgNode, job: Job, num_processes: int) -> None:
    """:func:`check`, and make ``OUTPUT_DIR`` ready; in every process that there is.

    Raises:
        UserError: in the first process of each machine, of what any process refuses.
        SystemExit: in the others.
    """
    replaced = _together(check, cfg, job, num_processes, main_only=True)
    changed = [
        *("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES),
        *("DATASETS.TEST", cfg.DATASETS.TEST),
    ]
    cfg.merge_from_list(comm.all_gather(changed)[0])
    if job.trains:
        if any(comm.all_gather(bool(replaced))):
            register_datasets(cfg, _categories(cfg, job))
            _together(require_trainer, cfg)
        _together(claim_output_dir, cfg, replaced, main_only=True)


def check(cfg: CfgNode, job: Job, num_processes: int) -> list[Path]:
    """Check in seconds all that could stop the job later; complete ``cfg`` from the data.

    Sets ``MODEL.ROI_HEADS.NUM_CLASSES`` and, in training, leaves out of ``DATASETS.TEST`` what
    cannot be evaluated on.

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
        for name in cfg.DATASETS.TEST:
            _require_annotations(cfg, name, "DATASETS.TEST")
            _require_sound(cfg, name)
    else:
        require_sound_values(cfg)
        build_mapper(cfg, is_train=True)  # for what it refuses
        # With a reference, the batch grows with the processes.
        require_divisible_batch(cfg, cfg.SOLVER.REFERENCE_WORLD_SIZE or num_processes)
        for name in cfg.DATASETS.TRAIN:
            _require_annotations(cfg, name, "DATASETS.TRAIN")
            require_trainable(cfg, name)
        cfg.DATASETS.TEST = tuple(_sets_to_evaluate(cfg))
        for name in cfg.DATASETS.TEST:
            _require_sound(cfg, name)
        warn_of_common_pictures(cfg)
    categories = _categories(cfg, job)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories.ids)
    register_datasets(cfg, categories)
    if not job.eval_only:
        _require_best_metric(cfg, categories)
        return files_to_replace(cfg, resume=job.resume, overwrite=job.overwrite)
    return []


def prepare_and_run(cfg: CfgNode, job: Job) -> None:
    """:func:`prepare` in processes that were started together, then :func:`run`.

    Processes that torchrun has started again go on with their run.

    Raises:
        UserError, SystemExit: see :func:`prepare`.
    """
    job = _restarted(cfg, job)
    prepare(cfg, job, comm.get_world_size())
    run(cfg, job)


def _together(function: Callable, *args, main_only: bool = False) -> Any:
    """``function(*args)`` in every process, or in the main one; all end where one refuses it.

    Returns:
        What the function does; None where it was not called.
    """
    own, result = None, None
    if not main_only or comm.is_main_process():
        try:
            result = function(*args)
        except UserError as error:
            own = error
    problems = [problem for problem in comm.all_gather(own and str(own)) if problem]
    if not problems:
        return result
    if comm.get_local_rank() == 0:
        raise own or UserError(problems[0])
    time.sleep(OTHERS_ERROR_SECONDS)  # what is said comes first
    raise SystemExit(2)


def _restarted(cfg: CfgNode, job: Job) -> Job:
    """What to do after torchrun's restart: go on from the newest checkpoint, if there is one."""
    if job.eval_only or job.resume or job.dry_run:
        return job
    restarts = max(comm.all_gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))))
    goes_on = restarts or (outlives_its_processes() and not is_finished(cfg.OUTPUT_DIR))
    # Without the claim it is another run that is there, for which this job may have been refused.
    if not any(comm.all_gather(goes_on and is_claimed(cfg.OUTPUT_DIR))):
        return job
    try:
        logger.info(f"Started again: going on from {newest_checkpoint(cfg.OUTPUT_DIR)}")
        return replace(job, resume=True, overwrite=False)
    except UserError:
        return replace(job, overwrite=True)


def run(cfg: CfgNode, job: Job) -> dict | list | None:
    """Do the job; called in every process, after :func:`prepare` in the first one.

    Returns:
        Metrics of training or evaluation, or the detections of an export.
    """
    # Processes that were spawned have registered nothing yet.
    register_datasets(cfg, _categories(cfg, job))
    if job.dry_run:
        log_to_console(comm.get_rank())
    else:
        log_to_file(cfg.OUTPUT_DIR, comm.get_rank())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if job.eval_only:
        return _evaluate(cfg, job)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if job.dry_run:
        dry_run(cfg)
        return None
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=job.resume)
    if comm.is_main_process():
        (Path(cfg.OUTPUT_DIR) / "config.yaml").write_text(trainer.cfg.dump())
    return trainer.train()


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


def _evaluate(cfg: CfgNode, job: Job) -> dict | list:
    weights = find_weights(cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    if is_exported(weights):
        cfg = with_whole_pictures(cfg)
        model, extra = ExportedModel(weights, cfg), {}
    else:
        model, extra = _filled_model(cfg)
    if job.submission:
        return Trainer.export_submission(cfg, model, submission_set(cfg), job.submission)
    iteration = extra["iteration"] + 1 if "iteration" in extra else None
    evaluators = [
        Trainer.build_evaluator(cfg, name, in_training=False, iteration=iteration)
        for name in cfg.DATASETS.TEST
    ]
    return Trainer.test(cfg, model, evaluators)


def _categories(cfg: CfgNode, job: Job) -> Categories:
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
    keys = [*SUMMARY, *(f"AP-{name}" for name in categories.names)]
    metrics = [f"{iou_type}/{key}" for iou_type in iou_types(cfg) for key in keys]
    if cfg.DATASETS.TEST and cfg.TEST.BEST_METRIC not in metrics:
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
    others = sets_with_annotations(cfg)
    which = f"those with annotations are: {', '.join(others)}" if others else "no other set has any"
    without = "; --format-only FILE writes a submission without them"
    raise UserError(
        f"data set {name!r} has no annotations; {which} (choose with {key}"
        f"{without if key == 'DATASETS.TEST' else ''})"
    )


def _sets_to_evaluate(cfg: CfgNode) -> list[str]:
    usable = sets_with_annotations(cfg, cfg.DATASETS.TEST)
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
            f"No evaluation on {name} while training: {why} (scripts/split_dataset.py sets a part"
            " of the training set aside)"
        )
    return usable


def _filled_model(cfg: CfgNode) -> tuple[nn.Module, dict]:
    """The model with ``MODEL.WEIGHTS``, and what else was in that file."""
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(
        model, cfg.OUTPUT_DIR, allow_partial=cfg.MODEL.WEIGHTS_ALLOW_PARTIAL
    )
    return model, checkpointer.load(cfg.MODEL.WEIGHTS, checkpointables=[])
