"""What a run has left in its directory, read again and judged."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from project.data.categories import Categories
from project.data.coco_json import inspect_dataset
from project.errors import UserError
from project.evaluation.error_analysis import ErrorAnalysis, Found, Kind, Truth, analyze_errors
from project.files import read_json, sha256_of


@dataclass(frozen=True)
class EvaluatedRun:
    """A run with an evaluation on one data set.

    Attributes:
        folder: the run's directory.
        dataset: name of the data set.
        record: ``run.json``, "" where there is none: weights of another project were evaluated.
        config: ``config.yaml``, likewise.
        metrics: lines of ``metrics.json``; empty likewise.
        evaluation: ``evaluation.json``, or that of the data set.
        coco_json: the data set's JSON, as it was evaluated against.
        image_root: folder of its pictures.
        categories: of the data set.
        detections: COCO results.
    """

    folder: Path
    dataset: str
    record: Mapping
    config: str
    metrics: list[Mapping]
    evaluation: Mapping
    coco_json: Mapping
    image_root: Path
    categories: Categories
    detections: list[Mapping]

    @cached_property
    def errors(self) -> ErrorAnalysis:
        """Every detection and every object, judged."""
        return analyze_errors(self.coco_json, self.detections, self.categories)

    @cached_property
    def threshold(self) -> float:
        """The score from which on detections are best taken for objects; has the largest F1."""
        return self.errors.best_threshold()

    @cached_property
    def pictures(self) -> dict[object, "JudgedPicture"]:
        """Image id -> what was found there from :attr:`threshold` on, and what was to be found."""
        found, objects = defaultdict(list), defaultdict(list)
        for item in self.errors.detections:
            if item.score >= self.threshold and item.is_counted:
                found[item.image_id].append(item)
        for truth in self.errors.objects:
            objects[truth.image_id].append(truth)
        return {
            image["id"]: JudgedPicture(image, found[image["id"]], objects[image["id"]])
            for image in self.coco_json["images"]
        }


@dataclass(frozen=True)
class JudgedPicture:
    """A picture's detections and objects.

    Attributes:
        image: of the JSON.
        found: the detections that count, the most certain first.
        objects: what was annotated, without crowds.
    """

    image: Mapping
    found: list[Found]
    objects: list[Truth]

    @property
    def missed(self) -> list[Truth]:
        """Objects that none of the detections has found."""
        correct = {id(item.truth) for item in self.found if item.kind is Kind.CORRECT}
        return [truth for truth in self.objects if id(truth) not in correct]

    @property
    def quality(self) -> float:
        """Panoptic quality (Kirillov et al. 2019, equation 1) over all classes together, 0 to 1.

        The IoUs of correct detections, divided by the mean number of detections and objects; 1
        where there is nothing to find and nothing was found.
        """
        number = (len(self.found) + len(self.objects)) / 2
        return sum(x.iou for x in self.found if x.kind is Kind.CORRECT) / number if number else 1.0


def load_run(folder: Path, dataset: str = "") -> EvaluatedRun:
    """Read a run's directory.

    Args:
        dataset: which evaluation; "" for that of ``evaluation.json``.

    Raises:
        UserError: there is no evaluation, its data set is no longer there or has changed, or its
            detections have been replaced.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}")
    main = folder / "evaluation.json"
    if not main.is_file():
        raise UserError(
            f"{folder} has no evaluation.json: train with a DATASETS.TEST that has annotations, or"
            " run train_net.py --eval-only"
        )
    evaluation = read_json(main)
    if dataset and evaluation["dataset"] != dataset:
        other = folder / f"evaluation_{dataset}.json"
        if not other.is_file():
            raise UserError(f"{folder} has no evaluation on {dataset!r}, only {main.name}")
        evaluation = read_json(other)
    dataset = evaluation["dataset"]
    inference = folder / "inference" / dataset
    source = read_json(inference / "dataset.json")
    json_file, image_root = Path(source["json"]), Path(source["images"])
    if not json_file.is_file() or not image_root.is_dir():
        raise UserError(
            f"{json_file} or {image_root} is no longer there: evaluate again where the data are"
        )
    coco_json = inspect_dataset(json_file, image_root).content
    is_known = source.get("json_sha256") in (None, sha256_of(json_file))  # None of an older version
    if not is_known or len(coco_json["images"]) != source["num_images"]:
        raise UserError(f"{json_file} has changed since it was evaluated; evaluate again")
    detections = inference / "detections.json"
    if evaluation.get("detections_sha256") not in (None, sha256_of(detections)):
        raise UserError(
            f"{detections} is not what the AP in {folder} on {dataset!r} was computed from: another"
            " evaluation came later, or did not come to its end; evaluate again"
        )
    config = folder / "config.yaml"
    record = folder / "run.json"
    return EvaluatedRun(
        folder=folder,
        dataset=dataset,
        record=read_json(record) if record.is_file() else {},
        config=config.read_text() if config.is_file() else "",
        metrics=_read_metrics(folder / "metrics.json"),
        evaluation=evaluation,
        coco_json=coco_json,
        image_root=image_root,
        categories=Categories.from_mapping(source["categories"]),
        detections=read_json(detections),
    )


def _read_metrics(path: Path) -> list[dict]:
    """The lines of ``metrics.json`` by iteration; a line that was cut off is left out."""
    lines: dict[int, dict] = {}
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines.setdefault(line["iteration"], {}).update(line)
    return [lines[iteration] for iteration in sorted(lines)]
