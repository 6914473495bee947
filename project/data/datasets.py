"""Register the data sets that a config speaks of, and check them before any long work.

The "tiny PASCAL VOC" layout (:mod:`project.data.layout`) under ``DATASETS.ROOT``,
and any other COCO-format data as ``custom_train`` and ``custom_test``.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from project.data.categories import Categories, read_categories
from project.data.checking.problems import KINDS, Severity
from project.data.checking.report import by_kind, in_one_line
from project.data.coco_json import inspect_dataset, read_coco_json
from project.data.coco_records import coco_records
from project.data.layout import SPLIT_SETS, DatasetFiles, tiny_voc_files
from project.errors import UserError

logger = logging.getLogger(__name__)


def dataset_files(cfg: CfgNode) -> dict[str, DatasetFiles]:
    """The files of every data set that the config can name, there or not."""
    root, keys = Path(cfg.DATASETS.ROOT), cfg.DATASETS
    files = tiny_voc_files(root)
    for name, json_file, images in (
        ("custom_train", keys.TRAIN_JSON, keys.TRAIN_IMAGES),
        ("custom_test", keys.TEST_JSON, keys.TEST_IMAGES),
    ):
        if json_file:
            files[name] = DatasetFiles(name, root / json_file, root / images)
    return files


def require_dataset(cfg: CfgNode, name: str) -> DatasetFiles:
    """The files of data set ``name``, which are there.

    Raises:
        UserError: no such name, no data root, no JSON, or no image folder.
    """
    known = dataset_files(cfg)
    if name not in known:
        custom = {"custom_train": "DATASETS.TRAIN_JSON", "custom_test": "DATASETS.TEST_JSON"}
        if name in custom:
            raise UserError(f"data set custom_*: set {custom[name]} (and its images) for {name!r}")
        raise UserError(f"there is no data set {name!r}; known: {', '.join(known)}")
    files = known[name]
    root = Path(cfg.DATASETS.ROOT)
    is_below = files.json_file.is_relative_to(root)
    if is_below and not files.json_file.is_file() and not root.is_dir():
        raise UserError(
            f"no data at DATASETS.ROOT {str(root)!r}: expected {files.json_file.name} and"
            f" {files.image_root.name}/ in that folder (python scripts/generate_dataset.py makes"
            " one to try; README: data layout)"
        )
    if not files.json_file.is_file():
        raise UserError(
            f"data set {name!r}: there is no file {str(files.json_file)!r}"
            + (f" (python scripts/split_dataset.py {root} writes it)" if name in SPLIT_SETS else "")
        )
    if not files.image_root.is_dir():
        raise UserError(f"data set {name!r}: there is no folder {str(files.image_root)!r}")
    return files


def register_datasets(cfg: CfgNode, categories: Categories) -> None:
    """Register every data set whose files are there; what is registered already is replaced."""
    for files in dataset_files(cfg).values():
        name = files.name
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        if not files.json_file.is_file():
            continue
        DatasetCatalog.register(
            name, partial(coco_records, files.json_file, files.image_root, categories)
        )
        MetadataCatalog.get(name).set(
            json_file=str(files.json_file),
            image_root=str(files.image_root),
            evaluator_type="coco",
            thing_classes=list(categories.names),
            thing_dataset_id_to_contiguous_id=categories.contiguous_ids,
        )


def register_training_sets(cfg: CfgNode) -> Categories:
    """Check and register ``DATASETS.TRAIN``, for programs that need no model.

    Returns:
        The categories of the data.

    Raises:
        UserError: a set is missing or has errors.
    """
    for name in cfg.DATASETS.TRAIN:
        require_trainable(cfg, name)
    categories = resolve_categories(cfg, None, must_agree=False)
    register_datasets(cfg, categories)
    return categories


def resolve_categories(cfg: CfgNode, stored: Mapping | None, *, must_agree: bool) -> Categories:
    """The categories of a run: from the training JSON, else the checkpoint, else the test JSON.

    Args:
        stored: "categories" of a checkpoint, id -> name, if it has them.
        must_agree: whether the checkpoint's must be those of the data (not in fine-tuning).

    Raises:
        UserError: two of them disagree, or there are none. Test sets may lack some.
    """
    train = _read_all_categories(cfg, cfg.DATASETS.TRAIN)
    test = _read_all_categories(cfg, [*cfg.DATASETS.TEST, cfg.DATASETS.SUBMISSION])
    whole = dict(train)
    if stored and (must_agree or not train):
        whole["the checkpoint"] = Categories.from_mapping(stored)
    if not whole:
        whole = dict(list(test.items())[:1])
    if not whole:
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, cfg.DATASETS.SUBMISSION]
        require_dataset(cfg, names[0])  # says what is missing
    source, categories = next(iter(whole.items()))
    if not categories.ids:
        raise UserError(f"{source} has no categories")
    for other_source, other in {**whole, **test}.items():
        agrees = other.is_part_of(categories) if other_source in test else other == categories
        if not agrees:
            raise UserError(
                f"the categories of {other_source} and of {source} disagree:"
                f" {other.difference(categories)}"
            )
    return categories


def _read_all_categories(cfg: CfgNode, names: Iterable[str]) -> dict[str, Categories]:
    """JSON file -> its categories, for those of the named data sets that are there."""
    known = dataset_files(cfg)
    paths = [known[name].json_file for name in names if name in known]
    return {
        str(path): read_categories(read_coco_json(path), path, skip_bad=cfg.DATASETS.SKIP_BAD)
        for path in paths
        if path.is_file()
    }


def has_annotations(files: DatasetFiles) -> bool:
    """Whether the JSON has ground truth to evaluate against."""
    return bool(read_coco_json(files.json_file).get("annotations"))


def require_trainable(cfg: CfgNode, name: str) -> None:
    """Check a set that is to be trained on.

    Raises:
        UserError: it is missing, has errors, or has masks that ``INPUT.MASK_FORMAT`` is not for.
    """
    files = require_dataset(cfg, name)
    require_sound(files, cfg.DATASETS.SKIP_BAD)
    if cfg.INPUT.MASK_FORMAT == "polygon":
        _require_polygons(files)


def _require_polygons(files: DatasetFiles) -> None:
    """Raise :class:`UserError` if an object to train on has a mask that is no polygon."""
    content = inspect_dataset(files.json_file, files.image_root).content  # what will be trained on
    for annotation in content.get("annotations", []):
        if isinstance(annotation["segmentation"], dict) and not annotation["iscrowd"]:
            raise UserError(
                f"INPUT.MASK_FORMAT polygon: annotation {annotation['id']} of"
                f" {files.json_file} is an RLE; set INPUT.MASK_FORMAT bitmask"
            )


def require_sound(files: DatasetFiles, skip_bad: bool) -> None:
    """Check a data set (:mod:`project.data.checking`), and log its warnings.

    Args:
        skip_bad: leave out what has errors, and list it, instead of refusing.

    Raises:
        UserError: it has errors, or no picture (that is left).
    """
    inspection = inspect_dataset(files.json_file, files.image_root)
    errors = inspection.errors
    warnings = [p for p in inspection.problems if p.severity is Severity.WARNING]
    for what, is_repaired in (("repaired when loaded", True), ("to look at", False)):
        some = [p for p in warnings if bool(KINDS[p.kind].remedy) == is_repaired]
        if some:
            logger.warning(f"Data set {files.name!r}, {what}: {in_one_line(some)}")
    if errors and not skip_bad:
        raise UserError(
            f"data set {files.name!r}, {files.json_file}: {in_one_line(errors)}; python"
            " scripts/check_dataset.py says more; DATASETS.SKIP_BAD True leaves them out"
        )
    for kind, found in by_kind(errors).items():
        places = "; ".join(problem.place() for problem in found)
        logger.warning(f"Data set {files.name!r}, left out: {len(found)} x {kind}: {places}")
    if not inspection.content["images"]:
        left = " is left" if errors else ""
        raise UserError(f"data set {files.name!r}, {files.json_file}: no picture{left}")


def warn_of_common_pictures(cfg: CfgNode) -> None:
    """Log test sets with files that are trained on; scripts/check_dataset.py finds copies, too."""
    known = dataset_files(cfg)

    def pictures(name: str) -> set[str]:
        files = known[name]
        images = inspect_dataset(files.json_file, files.image_root).content["images"]
        return {os.path.abspath(files.image_root / image["file_name"]) for image in images}

    trained_on = set().union(*map(pictures, cfg.DATASETS.TRAIN))
    for name in evaluable_sets(cfg):
        tested_on = pictures(name)
        if common := len(tested_on & trained_on):
            logger.warning(
                f"{common} of the {len(tested_on)} pictures of {name} are trained on, too: its AP"
                " will not say how well other pictures do"
            )


def sets_with_annotations(cfg: CfgNode, names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that can be evaluated on."""
    known = dataset_files(cfg)
    return tuple(
        name
        for name in names
        if name in known and known[name].json_file.is_file() and has_annotations(known[name])
    )


def evaluable_sets(cfg: CfgNode) -> tuple[str, ...]:
    """Those of ``DATASETS.TEST`` that can be evaluated on."""
    return sets_with_annotations(cfg, cfg.DATASETS.TEST)


def with_evaluable_sets(cfg: CfgNode) -> CfgNode:
    """A config with those of ``DATASETS.TEST`` that have annotations now; in every process."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = comm.all_gather(evaluable_sets(cfg))[0]
    return cfg
