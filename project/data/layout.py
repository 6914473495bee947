"""Where the files of data sets are: the "tiny PASCAL VOC" layout, under one root::

train_images/  pascal_train.json           -> tiny_voc_train
test_images/   test.json                   -> tiny_voc_test (no annotations: export only)
               test_annotations.json       -> tiny_voc_test_annotated
train_images/  pascal_train_split.json     -> tiny_voc_train_split
               pascal_val.json             -> tiny_voc_val
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetFiles:
    """Where one data set is: the COCO JSON and the folder that its file names are relative to."""

    name: str
    json_file: Path
    image_root: Path


_TINY_VOC = {
    "tiny_voc_train": ("pascal_train.json", "train_images"),
    "tiny_voc_train_split": ("pascal_train_split.json", "train_images"),
    "tiny_voc_val": ("pascal_val.json", "train_images"),
    "tiny_voc_test": ("test.json", "test_images"),
    "tiny_voc_test_annotated": ("test_annotations.json", "test_images"),
}
# What scripts/split_dataset.py makes of the training set.
SPLIT_SETS = ("tiny_voc_train_split", "tiny_voc_val")


def tiny_voc_files(root: Path) -> dict[str, DatasetFiles]:
    """The data sets that a root of that layout can hold, there or not."""
    return {
        name: DatasetFiles(name, root / json_file, root / images)
        for name, (json_file, images) in _TINY_VOC.items()
    }
