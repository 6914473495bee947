"""The trainer: Detectron2's, with COCO evaluation, submission export and safe checkpoints."""

import logging
import weakref
from collections import OrderedDict

from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn

from project.checkpoint.checkpointer import Checkpointer
from project.data.augmentation import build_mapper
from project.data.categories import Categories
from project.engine.hooks import TimedWriter
from project.evaluation.detections import write_json
from project.evaluation.evaluator import COCOInstanceEvaluator, DetectionCollector

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains, evaluates and exports what a config describes.

    The data sets of the config must be registered (:func:`project.data.datasets.register_datasets`)
    and ``MODEL.ROI_HEADS.NUM_CLASSES`` must be their number of categories.
    """

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

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's hooks, with this project's checkpointer and a progress line in time."""
        # DefaultTrainer makes its checkpointer just before it asks for the hooks that use it.
        self.checkpointer = Checkpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            metadata={
                "config": self.cfg.dump(),
                "categories": categories_of(self.cfg.DATASETS.TRAIN[0]).to_mapping(),
            },
            allow_partial=self.cfg.MODEL.WEIGHTS_ALLOW_PARTIAL,
            trainer=weakref.proxy(self),
        )
        ret = [hook for hook in super().build_hooks() if not isinstance(hook, hooks.PeriodicWriter)]
        if comm.is_main_process():
            ret.append(TimedWriter(self.build_writers(), seconds=self.cfg.LOG_PERIOD_SECONDS))
        return ret

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """Detectron2's loader of ``DATASETS.TRAIN`` with this project's mapper."""
        return build_detection_train_loader(cfg, mapper=build_mapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """Detectron2's loader of a test set with this project's mapper."""
        mapper = build_mapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, iteration: int | None = None
    ) -> DatasetEvaluator:
        """COCO box and mask AP; the first set of ``DATASETS.TEST`` writes ``evaluation.json``.

        Args:
            iteration: iterations that the model was trained for; in training it is known.
        """
        if iteration is None:
            # Detectron2 counts one further once the last iteration is done.
            iteration = min(get_event_storage().iter + 1, cfg.SOLVER.MAX_ITER)
        is_first = dataset_name == cfg.DATASETS.TEST[0]
        return COCOInstanceEvaluator(
            dataset_name,
            categories_of(dataset_name),
            cfg.OUTPUT_DIR,
            result_file="evaluation.json" if is_first else f"evaluation_{dataset_name}.json",
            iteration=iteration,
        )

    @classmethod
    def export_submission(
        cls, cfg: CfgNode, model: nn.Module, dataset_name: str, path: str
    ) -> list[dict]:
        """Write the detections on a data set, with or without annotations, as a submission file.

        Args:
            path: of the JSON list to write; see :mod:`project.evaluation.detections`.

        Returns:
            The detections; empty on all processes but the main one.
        """
        collector = DetectionCollector(dataset_name, categories_of(dataset_name))
        loader = cls.build_test_loader(cfg, dataset_name)
        detections = inference_on_dataset(model, loader, collector)
        if comm.is_main_process():
            write_json(detections, path)
            images = len({detection["image_id"] for detection in detections})
            logger.info(f"{path}: {len(detections)} detections on {images} images")
            return detections
        return []

    def train(self) -> OrderedDict | None:
        """Train to ``SOLVER.MAX_ITER`` and log where the results are."""
        results = super().train()
        if comm.is_main_process():
            logger.info(f"Finished: the model is {self.cfg.OUTPUT_DIR}/latest.pth")
        return results


def categories_of(dataset_name: str) -> Categories:
    """The categories that a registered data set was registered with."""
    metadata = MetadataCatalog.get(dataset_name)
    ids = metadata.thing_dataset_id_to_contiguous_id
    return Categories(tuple(ids), tuple(metadata.thing_classes))
