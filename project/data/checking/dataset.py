"""Check the data sets of a folder, each by itself and against each other; write a repaired copy."""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from project.data.checking.inspection import Inspection
from project.data.checking.pictures import difference_hash, same_content, similar_groups
from project.data.checking.problems import KINDS, Problem
from project.data.coco_json import inspect_dataset
from project.data.layout import DatasetFiles
from project.errors import UserError
from project.files import require_new_folder, write_json

# Sets that must have no picture in common.
_APART = (
    ("tiny_voc_train", "tiny_voc_test"),
    ("tiny_voc_train", "tiny_voc_test_annotated"),
    ("tiny_voc_train_split", "tiny_voc_val"),
)


@dataclass
class CheckedSet:
    """A data set and what is wrong with it."""

    files: DatasetFiles
    inspection: Inspection

    @property
    def problems(self) -> list[Problem]:
        return self.inspection.problems

    def pictures(self) -> dict[Path, dict]:
        """Path -> image of the JSON, of the pictures that can be used."""
        images = self.inspection.content["images"]
        return {self.files.image_root / image["file_name"]: image for image in images}


def check_sets(
    known: Mapping[str, DatasetFiles], *, decode: bool = False, progress: bool = False
) -> list[CheckedSet]:
    """Check those of the data sets that are there.

    Args:
        decode: decode every picture, and look for pictures that look the same.
        progress: show a bar.

    Raises:
        UserError: there is none, a JSON is none, or a folder is missing.
    """
    there = [files for files in known.values() if files.json_file.is_file()]
    if not there:
        names = ", ".join(sorted({str(files.json_file) for files in known.values()}))
        raise UserError(f"there is no data set: looked for {names}")
    checked = []
    for files in there:
        if not files.image_root.is_dir():
            raise UserError(
                f"data set {files.name!r}: there is no folder {str(files.image_root)!r}"
            )
        inspection = inspect_dataset(
            files.json_file, files.image_root, decode=decode, progress=progress
        )
        # A list of its own: what is found between sets is added to it.
        inspection = Inspection(list(inspection.problems), inspection.content)
        checked.append(CheckedSet(files, inspection))
    _compare(checked, decode, progress)
    return checked


def _compare(checked: list[CheckedSet], decode: bool, progress: bool) -> None:
    """Add to the problems: pictures that are there twice, in one set or in two."""
    paths = {path for one in checked for path in one.pictures()}
    groups, similar = look_alikes(paths, decode=decode, progress=progress)
    twins = {path: group for group in groups for path in group}
    sets = {one.files.name: (one.pictures(), one.problems) for one in checked}
    for pictures, problems in sets.values():
        for group in groups:
            here = [path for path in group if path in pictures]
            for path in here[1:]:
                problems.append(_about("image-duplicate", pictures, path, here[0]))
        for group in similar:
            here = [path for path in group if path in pictures]
            for path in here[1:]:
                if path not in twins.get(here[0], ()):
                    problems.append(_about("image-similar", pictures, path, here[0]))
    for train_name, test_name in _APART:
        if train_name not in sets or test_name not in sets:
            continue
        train, _ = sets[train_name]
        test, problems = sets[test_name]
        for path in test:
            for twin in twins.get(path, [path]):
                if twin in train:
                    problems.append(_about("image-in-two-sets", test, path, twin, train_name))
        for group in similar:
            others = [path for path in group if path in train]
            for path in group:
                if path in test:
                    other = next((p for p in others if p not in twins.get(path, [path])), None)
                    if other is not None:
                        problems.append(_about("image-similar", test, path, other, train_name))


def look_alikes(
    paths: Iterable[Path], *, decode: bool = True, progress: bool = False
) -> tuple[list[list[Path]], list[list[Path]]]:
    """Groups of files with the same content, and groups of those that look the same.

    Args:
        decode: look for the latter, which takes the pictures' decoding.
    """
    paths = sorted(paths)
    groups = [sorted(group) for group in same_content(paths)]
    if not decode:
        return groups, []
    hashes = {
        path: difference_hash(path)
        for path in tqdm(paths, desc="comparing", unit="", disable=not progress)
    }
    return groups, list(similar_groups(hashes))


def _about(
    kind: str, pictures: Mapping[Path, dict], path: Path, other: Path, set_name: str = ""
) -> Problem:
    image = pictures[path]
    where = f" of {set_name}" if set_name else ""
    return Problem(kind, f"{other.name}{where}", file_name=image["file_name"], image_id=image["id"])


def write_repaired(checked: list[CheckedSet], root: Path, output: Path) -> None:
    """Write what :class:`Inspection` leaves of the sets, with their pictures, to ``output``.

    ``changes.json`` there lists what was changed. Nothing of the original is touched.

    Args:
        root: the folder that the sets are in, whose layout the copy has.

    Raises:
        UserError: ``output`` is not empty, or a set is not in ``root``.
    """
    require_new_folder(output)
    copies: dict[Path, Path] = {}
    changes, targets = {}, []
    for one in checked:
        folder = output / _place(one.files.image_root, root)
        targets.append((output / _place(one.files.json_file, root), folder))
        for path, image in one.pictures().items():
            copies[folder / image["file_name"]] = path
        changes[one.files.name] = [
            {**problem_to_json(problem), "remedy": KINDS[problem.kind].remedy}
            for problem in one.problems
            if KINDS[problem.kind].remedy
        ]
    for target, path in tqdm(copies.items(), desc="copying", unit="", disable=len(copies) < 1000):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    for one, (json_file, folder) in zip(checked, targets, strict=True):
        write_json(one.inspection.content, json_file)
        folder.mkdir(parents=True, exist_ok=True)
    write_json(changes, output / "changes.json", indent=2)


def _place(path: Path, root: Path) -> Path:
    """The path in ``root``; a link in it is not followed."""
    try:
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(root))
    except ValueError as error:
        raise UserError(
            f"--fix: {path} is not in {root}, so it has no place in the copy"
        ) from error


def problem_to_json(problem: Problem) -> dict:
    """Plain data, without what is empty."""
    values = {"severity": problem.severity.value, **vars(problem)}
    return {key: value for key, value in values.items() if value not in (None, "")}
