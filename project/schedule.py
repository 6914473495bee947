"""What a config states in epochs, in iterations."""

import logging
import math

from detectron2.config import CfgNode

from project.errors import UserError
from project.values import value_of

logger = logging.getLogger(__name__)

# Keys in epochs, and the key in iterations that each overrules where it is given.
EPOCH_KEYS = {
    "SOLVER.MAX_EPOCH": "SOLVER.MAX_ITER",
    "SOLVER.STEP_EPOCHS": "SOLVER.STEPS",
    "SOLVER.CHECKPOINT_EPOCHS": "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_EPOCHS": "TEST.EVAL_PERIOD",
}


def in_iterations(cfg: CfgNode, num_pictures: int) -> CfgNode:
    """A frozen copy of ``cfg`` whose keys in iterations say what those in epochs say.

    An epoch has ceil(num_pictures / SOLVER.IMS_PER_BATCH) iterations, as in mmdetection.

    Args:
        num_pictures: of the training set.

    Raises:
        UserError: a batch has no picture, or training no iteration.
    """
    if cfg.SOLVER.IMS_PER_BATCH < 1:
        raise UserError(f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}: choose 1 or more")
    per_epoch = math.ceil(num_pictures / cfg.SOLVER.IMS_PER_BATCH)
    changed: list = []
    for epoch_key, iteration_key in EPOCH_KEYS.items():
        epochs = value_of(cfg, epoch_key)
        if isinstance(epochs, (list, tuple)):
            iterations: object = tuple(epoch * per_epoch for epoch in epochs)
        else:
            iterations = epochs * per_epoch
        if epochs:
            changed += [iteration_key, iterations]
            logger.info(
                f"{epoch_key} {epochs}, with {per_epoch} iterations an epoch: {iteration_key}"
                f" {iterations} instead of {value_of(cfg, iteration_key)}"
            )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(changed)
    if cfg.SOLVER.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER}: choose 1 or more")
    # After the last iteration there is nothing to do more slowly, and fvcore refuses such a step.
    cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step != cfg.SOLVER.MAX_ITER)
    _warn_of_warmup(cfg)
    cfg.freeze()
    return cfg


def _warn_of_warmup(cfg: CfgNode) -> None:
    """Detectron2 warms up to what the schedule has come down to meanwhile."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        done = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1)
        reached = (1 + math.cos(math.pi * done)) / 2
    else:
        reached = solver.GAMMA ** sum(step <= solver.WARMUP_ITERS for step in solver.STEPS)
    if reached < 0.5:
        logger.warning(
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} of {solver.MAX_ITER} iterations: the"
            f" learning rate reaches {reached:.0%} of SOLVER.BASE_LR only; make it smaller, or"
            " train longer"
        )
