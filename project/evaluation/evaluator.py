"""Detectron2 evaluators: COCO metrics of a set with annotations, detections of one without."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from project.data.categories import Categories
from project.data.coco_json import inspect_dataset
from project.errors import UserError
from project.evaluation.coco_metrics import (
    IOU_TYPES,
    SUMMARY,
    AveragePrecision,
    evaluate_detections,
)
from project.evaluation.coco_results import share_of_empty_masks, to_coco_results
from project.evaluation.detections import to_detections
from project.files import sha256_of, write_json

logger = logging.getLogger(__name__)

EMPTY_MASKS = "predictions/empty_masks"  # a scalar in the event storage
PANEL_MIN_SCORE = 0.3  # after a short training, few detections are more certain


class DetectionCollector(DatasetEvaluator):
    """Collects the detections of a data set, from all processes, with the ids of its JSON.

    ``evaluate()`` returns the list on the main process and None on the others.
    """

    def __init__(self, dataset_name: str, categories: Categories):
        self.dataset_name = dataset_name
        self.categories = categories
        self.detections: list[dict] = []

    def reset(self) -> None:
        self.detections = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """See ``DatasetEvaluator``.

        Args:
            outputs: hold "instances" in pixels of the whole picture, or "detections".
        """
        for record, output in zip(inputs, outputs, strict=True):
            detections = output.get("detections")
            if detections is None:
                detections = to_detections(output["instances"], self.categories)
            self.detections += to_coco_results(detections, record["image_id"])

    def evaluate(self) -> list[dict] | None:
        gathered = comm.gather(self.detections, dst=0)
        if not comm.is_main_process():
            return None
        return [detection for part in gathered for detection in part]


class COCOInstanceEvaluator(DetectionCollector):
    """Box and mask AP on a data set with annotations.

    Writes ``output_dir/<result_file>``, ``output_dir/inference/<dataset>/detections.json`` and
    ``dataset.json`` beside the latter.

    Args:
        iteration: iterations that the model has been trained for, None where it is not known.
        iou_types: "bbox" for boxes, "segm" for masks.
        storage: in training, takes the share of :data:`EMPTY_MASKS` and, for TensorBoard, a picture
            of predictions beside ground truth.
        panel_images: so many pictures of the data set are on it; 0 for none.
    """

    def __init__(
        self,
        dataset_name: str,
        categories: Categories,
        output_dir: str,
        *,
        result_file: str = "evaluation.json",
        iou_types: Sequence[str] = tuple(IOU_TYPES),
        iteration: int | None = None,
        storage: EventStorage | None = None,
        panel_images: int = 0,
    ):
        super().__init__(dataset_name, categories)
        self.output_dir = Path(output_dir)
        self.result_file = result_file
        self.iou_types = iou_types
        self.iteration = iteration
        self.storage = storage
        self.panel_images = panel_images

    def evaluate(self) -> OrderedDict | None:
        """Returns {"bbox": {"AP": ..., "AP-<class>": ...}, "segm": ...}, in percent.

        On the main process; None on the others.
        """
        detections = super().evaluate()
        if detections is None:
            return None
        metadata = MetadataCatalog.get(self.dataset_name)
        folder = self.output_dir / "inference" / self.dataset_name
        write_json(detections, folder / "detections.json")
        coco_json = inspect_dataset(Path(metadata.json_file), Path(metadata.image_root)).content
        write_json(
            {
                "dataset": self.dataset_name,
                "json": str(Path(metadata.json_file).resolve()),
                "json_sha256": sha256_of(metadata.json_file),
                "images": str(Path(metadata.image_root).resolve()),
                "num_images": len(coco_json["images"]),
                "categories": self.categories.to_mapping(),
            },
            folder / "dataset.json",
            indent=2,
        )
        results = {
            iou_type: evaluate_detections(coco_json, detections, iou_type, self.categories)
            for iou_type in self.iou_types
        }
        write_json(
            {
                "dataset": self.dataset_name,
                "iteration": self.iteration,
                "detections_sha256": sha256_of(folder / "detections.json"),
                **{iou_type: precision.to_json() for iou_type, precision in results.items()},
            },
            self.output_dir / self.result_file,
            indent=2,
        )
        title = f"{self.dataset_name}: {len(detections)} detections"
        logger.info(f"{title}\n{format_table(results)}")
        if self.storage is not None and detections and "segm" in self.iou_types:
            share = share_of_empty_masks(detections)
            self.storage.put_scalar(EMPTY_MASKS, share, smoothing_hint=False)
        if self.storage is not None:
            self._put_panel(coco_json, metadata.image_root, detections)
        return OrderedDict(
            (
                iou_type,
                {
                    **precision.summary,
                    **{f"AP-{name}": value["AP"] for name, value in precision.per_class.items()},
                },
            )
            for iou_type, precision in results.items()
        )

    def _put_panel(self, coco_json: dict, image_root: str, detections: list[dict]) -> None:
        """Put a sheet of the same pictures each time into the event storage."""
        if self.panel_images < 1:
            return
        # Here, for matplotlib takes a quarter of a second that every start would wait for.
        from project.visualization.contact_sheet import prediction_sheet

        try:
            sheet = prediction_sheet(
                coco_json,
                image_root,
                detections,
                num_images=self.panel_images,
                min_score=PANEL_MIN_SCORE,
                columns=2,
            )
        except UserError as error:  # no reason to end a training run
            logger.warning(f"No panel of predictions of {self.dataset_name}: {error}")
            return
        self.storage.put_image(f"predictions/{self.dataset_name}", sheet.transpose(2, 0, 1))


def format_table(results: dict[str, AveragePrecision]) -> str:
    """The AP of boxes and masks for the console: in all, by size, and per class."""
    rows = [
        [IOU_TYPES[iou_type], *(precision.summary[key] for key in SUMMARY)]
        for iou_type, precision in results.items()
    ]
    first = next(iter(results.values()))
    class_rows = [
        [
            name,
            first.per_class[name]["instances"],
            *(p.per_class[name][key] for p in results.values() for key in ("AP", "AP50")),
        ]
        for name in first.per_class
    ]
    headers = ["class", "instances"]
    headers += [f"{IOU_TYPES[iou_type]} {key}" for iou_type in results for key in ("AP", "AP50")]
    return "\n".join(
        [
            tabulate(rows, headers=["", *SUMMARY], floatfmt=".2f", tablefmt="simple"),
            "",
            tabulate(class_rows, headers=headers, floatfmt=".2f", tablefmt="simple"),
        ]
    )
