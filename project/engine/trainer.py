"""The trainer: Detectron2's, with COCO evaluation, submission export and safe checkpoints."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, get_event_storage
from fvcore.nn.precise_bn import get_bn_modules
from timm.utils import ModelEmaV3
from torch import distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from project.backbone.cpu_sync_batchnorm import use_cpu_sync_batchnorm
from project.checkpoint.checkpointer import Checkpointer, remove_old_checkpoints
from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from project.data.categories import Categories
from project.data.datasets import with_evaluable_sets
from project.data.loading import build_train_loader, start_worker, training_records
from project.data.mapper import build_mapper
from project.engine.hints import HintHook
from project.engine.hooks import (
    BestModelHook,
    CheckpointHook,
    EMAHook,
    EvalHook,
    PreciseBN,
    SignalHook,
    StopTraining,
    TimedWriter,
)
from project.engine.progress import ProgressPrinter
from project.engine.run_record import RunRecordHook
from project.engine.step import TrainStep
from project.errors import UserError
from project.evaluation.coco_metrics import IOU_TYPES
from project.evaluation.evaluator import COCOInstanceEvaluator, DetectionCollector
from project.files import write_json
from project.meta_arch.test_time_augmentation import as_tested
from project.precision import training_dtype
from project.running_statistics import share_statistics
from project.schedule import in_iterations
from project.seeding import seed_generators
from project.versions import versions

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains, evaluates and exports what a config describes.

    The data sets of the config must be registered (:func:`project.data.datasets.register_datasets`)
    and ``MODEL.ROI_HEADS.NUM_CLASSES`` must be their number of categories.

    Attributes:
        cfg: what was asked for, with its schedule in iterations; it is kept with the weights.
        test_cfg: the same, with those of ``DATASETS.TEST`` that have annotations now.
        records: of the pictures to train on, until training begins.
    """

    def __init__(self, cfg: CfgNode):
        # Not DefaultTrainer's: it reads data before it is known where a resumed run goes on, and
        # its trainer's random draws depend on what ran before.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.records = training_records(cfg)
        self.cfg = cfg = in_iterations(cfg, len(self.records))
        self.test_cfg = with_evaluable_sets(cfg)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        seed_generators(seed)  # new weights are the same on every process
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        on_cpu = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        if on_cpu and distributed.is_initialized():  # by torchrun also for one process
            use_cpu_sync_batchnorm(model)
        self.ema = None
        if cfg.MODEL.EMA.ENABLED:
            self.ema = ModelEmaV3(model, cfg.MODEL.EMA.DECAY, use_warmup=True)
            self.ema.module.train()
        self._trainer = TrainStep(
            # Gradients in the buckets that are sent, not beside them: 4 bytes a parameter less.
            create_ddp_model(
                model, broadcast_buffers=False, gradient_as_bucket_view=True, **on_cpu
            ),
            optimizer,
            seed=seed,
            dtype=training_dtype(cfg),
            accumulate=cfg.SOLVER.ACCUMULATE,
            detect_anomaly=cfg.SOLVER.DETECT_ANOMALY,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            self.model_to_use,
            cfg.OUTPUT_DIR,
            metadata={
                "config": cfg.dump(),
                "categories": categories_of(cfg.DATASETS.TRAIN[0]).to_mapping(),
                "versions": versions(),
            },
            allow_partial=cfg.MODEL.WEIGHTS_ALLOW_PARTIAL,
            trainer=weakref.proxy(self),
        )
        self.register_hooks(self.build_hooks())

    @property
    def seed(self) -> int:
        """Of all random draws; a resumed run has that of its beginning."""
        return self._trainer.seed

    @property
    def model_to_use(self) -> nn.Module:
        """The model that is evaluated and kept: the moving average, where there is one."""
        return self.model if self.ema is None else self.ema.module

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's ``build_model``; logs the number of parameters instead of every layer."""
        model = build_model(cfg)
        total = sum(p.numel() for p in model.parameters())
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        logger.info(
            f"Model: {cfg.MODEL.BACKBONE.NAME}, {cfg.MODEL.ROI_HEADS.NAME},"
            f" {cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes, {total / 1e6:.2f} M parameters"
            f" ({frozen / 1e6:.2f} M frozen), on {cfg.MODEL.DEVICE}"
        )
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> optim.Optimizer:
        """Detectron2's SGD, with all of a step in one pass over the weights."""
        optimizer = super().build_optimizer(cfg, model)
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer

    def build_hooks(self) -> list[hooks.HookBase]:
        """Schedule, checkpoints, evaluation, signals, a progress line in time and hints."""
        cfg = self.cfg
        ret = [hooks.IterationTimer(), hooks.LRScheduler()]
        if self.ema is not None:
            ret.append(EMAHook(self.ema, unwrapped(self.model)))
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            build_loader = partial(build_train_loader, cfg, self.records)
            period, number = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER
            ret.append(PreciseBN(period, self.model_to_use, build_loader, number))
        evaluates = len(self.test_cfg.DATASETS.TEST) > 0
        if cfg.TEST.EARLY_STOP_PATIENCE and not (evaluates and cfg.TEST.EVAL_PERIOD):
            raise UserError(
                "TEST.EARLY_STOP_PATIENCE counts evaluations, and there is none before the end: set"
                " TEST.EVAL_PERIOD or TEST.EVAL_EPOCHS, with annotated pictures in DATASETS.TEST"
            )
        self._best_model = None
        periods = [cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD if evaluates else 0]
        ret.append(CheckpointHook(periods))
        if evaluates:
            evaluation = EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate)
            first, *others = self.test_cfg.DATASETS.TEST
            metric = cfg.TEST.BEST_METRIC
            self._best_model = BestModelHook(
                metric,
                first,
                evaluation,
                key=f"{first}/{metric}" if others else metric,
                period=cfg.TEST.EVAL_PERIOD,
                patience=cfg.TEST.EARLY_STOP_PATIENCE,
                keep=cfg.SOLVER.CHECKPOINT_KEEP.BEST,
            )
            ret += [evaluation, self._best_model]
        if comm.is_main_process():
            ret.append(TimedWriter(self.build_writers(), seconds=cfg.LOG_PERIOD_SECONDS))
        hints = HintHook(
            base_lr=cfg.SOLVER.BASE_LR,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            warmup=cfg.SOLVER.WARMUP_ITERS,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        self._run_record = RunRecordHook(
            cfg.OUTPUT_DIR,
            config=cfg.dump(),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            device=cfg.MODEL.DEVICE,
            dtype=self._trainer.dtype,
            versions=versions(),
        )
        return [*ret, hints, self._run_record, SignalHook()]

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's, with a short line on the console."""
        printer = ProgressPrinter(
            self.max_iter, batch_size=self.cfg.SOLVER.IMS_PER_BATCH, device=self.cfg.MODEL.DEVICE
        )
        writers = super().build_writers()
        return [printer, *(w for w in writers if not isinstance(w, CommonMetricPrinter))]

    def _evaluate(self) -> OrderedDict:
        share_statistics(self.model_to_use)
        self._last_eval_results = self.test(self.test_cfg, self.model_to_use)
        return self._last_eval_results

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        """The training batches from the first one on."""
        return build_train_loader(cfg, training_records(cfg), seed=max(cfg.SEED, 0))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """Detectron2's loader of a test set with this project's mapper."""
        mapper = build_mapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        loader.worker_init_fn = start_worker  # for which Detectron2 0.6 has no argument
        return loader

    @classmethod
    def build_evaluator(
        cls,
        cfg: CfgNode,
        dataset_name: str,
        *,
        in_training: bool = True,
        iteration: int | None = None,
    ) -> DatasetEvaluator:
        """COCO box and mask AP; the first set of ``DATASETS.TEST`` writes ``evaluation.json``.

        Args:
            in_training: the first set's predictions are for TensorBoard too.
            iteration: iterations that the model was trained for, None where it is not known; not
                needed in training.
        """
        is_first = dataset_name == cfg.DATASETS.TEST[0]
        storage = None
        if in_training:
            # Detectron2 counts one further once the last iteration is done.
            iteration = min(get_event_storage().iter + 1, cfg.SOLVER.MAX_ITER)
            storage = get_event_storage() if is_first else None
        return COCOInstanceEvaluator(
            dataset_name,
            categories_of(dataset_name),
            cfg.OUTPUT_DIR,
            result_file="evaluation.json" if is_first else f"evaluation_{dataset_name}.json",
            iou_types=iou_types(cfg),
            iteration=iteration,
            storage=storage,
            panel_images=cfg.TEST.PANEL_IMAGES,
        )

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> OrderedDict:
        """Detectron2's, with test-time augmentation where the config asks for it."""
        return super().test(cfg, as_tested(cfg, model), evaluators)

    @classmethod
    def export_submission(
        cls, cfg: CfgNode, model: nn.Module, dataset_name: str, path: str
    ) -> list[dict]:
        """Write the detections on a data set, with or without annotations, as a submission file.

        Args:
            path: of the JSON list to write; see :mod:`project.evaluation.coco_results`.

        Returns:
            The detections; empty on all processes but the main one.
        """
        collector = DetectionCollector(dataset_name, categories_of(dataset_name))
        loader = cls.build_test_loader(cfg, dataset_name)
        detections = inference_on_dataset(as_tested(cfg, model), loader, collector)
        if comm.is_main_process():
            write_json(detections, path)
            images = len({detection["image_id"] for detection in detections})
            logger.info(
                f"{path}: {len(detections)} detections on {images} images of {dataset_name}"
            )
            return detections
        return []

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest intact checkpoint, or start with ``MODEL.WEIGHTS``.

        Args:
            resume: take the checkpoint; there must be one.
        """
        if resume:
            # One for all processes, also where a machine does not see the newest file yet.
            path = comm.all_gather(newest_checkpoint(self.cfg.OUTPUT_DIR))[0]
            if "trainer" not in read_checkpoint(path):
                _refuse_to_resume(path)
            self.checkpointer.load(path)
            logger.info(
                f"Going on after iteration {self.start_iter} of {self.max_iter}, from {path}"
            )
        else:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
            if self.ema is not None:
                unwrapped(self.model).load_state_dict(self.ema.module.state_dict())

    def read_batches(self) -> None:
        """Begin the stream of batches, at ``start_iter``."""
        loader = build_train_loader(self.cfg, self.records, seed=self.seed, start=self.start_iter)
        self._trainer.batches = iter(loader)

    def train(self) -> OrderedDict | None:
        """Train to ``SOLVER.MAX_ITER`` and log where the results are.

        Raises:
            StopTraining: a signal asked to stop; a checkpoint was saved.
        """
        self.read_batches()
        self.records = []  # the loader has them, in less memory
        try:
            super().train()
        except StopTraining as stop:
            if stop.code:
                raise
        if comm.is_main_process():
            logger.info(f"Finished: the model is {self.cfg.OUTPUT_DIR}/latest.pth")
        return getattr(self, "_last_eval_results", None)

    def after_train(self) -> None:
        """Detectron2's; where a hook fails, ``run.json`` says so."""
        try:
            super().after_train()
        except BaseException:
            self._run_record.after_train()
            raise

    @property
    def last_iteration(self) -> int:
        """The iteration that was just done, from 0."""
        # Detectron2 counts one further once the last one is done.
        return min(self.iter, self.max_iter - 1)

    def save(self, name: str) -> None:
        """Write the checkpoint ``name`` of the iteration that was just done, on the main process.

        Older ones go as ``SOLVER.CHECKPOINT_KEEP`` says.

        Raises:
            FloatingPointError: a weight is infinite or NaN; nothing is written.
        """
        for key, value in unwrapped(self.model).state_dict().items():
            if not value.isfinite().all():
                raise FloatingPointError(
                    f"after iteration {self.last_iteration} {key} is not finite, so {name}.pth is"
                    " not saved; older checkpoints are as they were: lower SOLVER.BASE_LR"
                )
        self.checkpointer.save(name, iteration=self.last_iteration)
        if comm.is_main_process():
            keep = self.cfg.SOLVER.CHECKPOINT_KEEP
            remove_old_checkpoints(
                self.cfg.OUTPUT_DIR,
                last=keep.LAST,
                every=keep.EVERY,
                best=self._best_model.kept_iterations if self._best_model else (),
            )

    def state_dict(self) -> dict:
        """What a resumed run needs beside the model that :attr:`model_to_use` is.

        Iteration, pictures seen, hooks, optimizer, scaler and seed; with a moving average, the
        weights that train.
        """
        # Detectron2 0.6 leaves the optimizer out, so that a resumed run loses its momentum.
        state = {
            **TrainerBase.state_dict(self),
            "iteration": self.last_iteration,
            "pictures": (self.last_iteration + 1) * self.cfg.SOLVER.IMS_PER_BATCH,
            "world_size": comm.get_world_size(),
            "_trainer": self._trainer.state_dict(),
        }
        if self.ema is not None:
            state["training_weights"] = unwrapped(self.model).state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from :meth:`state_dict`, with the config's schedule.

        With another batch size, the next iteration is that with as many pictures seen.

        Raises:
            UserError: the checkpoint has no optimizer: an older version of this project wrote it;
                or the schedule has fewer iterations than are done.
        """
        if "seed" not in state_dict.get("_trainer", {}):
            _refuse_to_resume("the checkpoint")
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        if self.ema is not None or "training_weights" in state_dict:
            weights = state_dict.get("training_weights", self.model_to_use.state_dict())
            unwrapped(self.model).load_state_dict(weights)

        batch_size = self.cfg.SOLVER.IMS_PER_BATCH
        done = state_dict["iteration"] + 1
        self.start_iter = state_dict.get("pictures", done * batch_size) // batch_size
        self.iter = self.start_iter - 1
        if self.start_iter > self.max_iter:
            raise UserError(
                f"--resume: {self.start_iter} iterations are done, and SOLVER.MAX_ITER is"
                f" {self.max_iter}; give that number or a larger one"
            )
        before, now = state_dict.get("world_size"), comm.get_world_size()
        if before not in (None, now) or self.start_iter != done:
            logger.warning(
                f"The checkpoint is of {before} process(es) after {done} iterations; {now} go on,"
                f" after {self.start_iter} iterations of {batch_size} pictures"
            )
        groups = self._trainer.optimizer.param_groups
        self.scheduler.last_epoch = self.start_iter
        self.scheduler.base_lrs = [group["initial_lr"] for group in groups]
        for group, rate in zip(groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate


def _refuse_to_resume(checkpoint: str) -> NoReturn:
    raise UserError(
        f"--resume: {checkpoint} holds no optimizer and seed; start a new run with it as"
        " MODEL.WEIGHTS"
    )


def iou_types(cfg: CfgNode) -> tuple[str, ...]:
    """What is evaluated: boxes ("bbox") and, where the model has them, masks ("segm")."""
    return tuple(IOU_TYPES) if cfg.MODEL.MASK_ON else ("bbox",)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in a ``DistributedDataParallel``, or itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def categories_of(dataset_name: str) -> Categories:
    """The categories that a registered data set was registered with."""
    metadata = MetadataCatalog.get(dataset_name)
    ids = metadata.thing_dataset_id_to_contiguous_id
    return Categories(tuple(ids), tuple(metadata.thing_classes))
