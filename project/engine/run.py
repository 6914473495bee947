"""The three jobs of ``train_net.py``, in one process or in many."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from project.checkpoint.checkpointer import Checkpointer
from project.checkpoint.reading import find_weights, newest_checkpoint
from project.data.datasets import register_datasets, with_evaluable_sets
from project.engine.checks import categories_of_job, check, submission_set
from project.engine.console import log_to_console, log_to_file
from project.engine.dry_run import dry_run
from project.engine.job import Job
from project.engine.launch import OTHERS_ERROR_SECONDS
from project.engine.output_dir import claim_output_dir, require_trainer
from project.engine.run_record import is_claimed, is_finished, outlives_its_processes
from project.engine.trainer import Trainer
from project.errors import UserError
from project.evaluation.exported_model import ExportedModel, with_whole_pictures
from project.files import write_text
from project.runtime import is_exported

logger = logging.getLogger(__name__)


def prepare(cfg: CfgNode, job: Job, num_processes: int) -> None:
    """:func:`check`, and make ``OUTPUT_DIR`` ready; in every process that there is.

    Raises:
        UserError: in the first process of each machine, of what any process refuses.
        SystemExit: in the others.
    """
    replaced = _together(check, cfg, job, num_processes, main_only=True)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = comm.all_gather(cfg.MODEL.ROI_HEADS.NUM_CLASSES)[0]
    if job.trains:
        if any(comm.all_gather(bool(replaced))):
            register_datasets(cfg, categories_of_job(cfg, job))
            _together(require_trainer, cfg)
        _together(claim_output_dir, cfg, replaced, main_only=True)


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
    register_datasets(cfg, categories_of_job(cfg, job))
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
        write_text(trainer.cfg.dump(), Path(cfg.OUTPUT_DIR) / "config.yaml")
    return trainer.train()


def _evaluate(cfg: CfgNode, job: Job) -> dict | list:
    weights = find_weights(cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    if is_exported(weights):
        cfg = with_whole_pictures(cfg)
        model, extra = ExportedModel(weights, cfg), {}
    else:
        model, extra = _filled_model(cfg)
    if job.submission:
        return Trainer.export_submission(cfg, model, submission_set(cfg), job.submission)
    cfg = with_evaluable_sets(cfg)
    iteration = extra["iteration"] + 1 if "iteration" in extra else None
    evaluators = [
        Trainer.build_evaluator(cfg, name, in_training=False, iteration=iteration)
        for name in cfg.DATASETS.TEST
    ]
    return Trainer.test(cfg, model, evaluators)


def _filled_model(cfg: CfgNode) -> tuple[nn.Module, dict]:
    """The model with ``MODEL.WEIGHTS``, and what else was in that file."""
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(
        model, cfg.OUTPUT_DIR, allow_partial=cfg.MODEL.WEIGHTS_ALLOW_PARTIAL
    )
    return model, checkpointer.load(cfg.MODEL.WEIGHTS, checkpointables=[])
