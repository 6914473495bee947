"""Check the data sets of a folder, each by itself and against each other; write a repaired copy."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from project.data.checking.inspection import Inspection
from project.data.checking.pictures import difference_hash, same_content, similar_pairs
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
        for first, second in similar:
            if first in pictures and second in pictures:
                problems.append(_about("image-similar", pictures, second, first))
    for train_name, test_name in _APART:
        if train_name not in sets or test_name not in sets:
            continue
        train, _ = sets[train_name]
        test, problems = sets[test_name]
        same = [(path, twin) for path in test for twin in twins.get(path, [path])]
        alike = [pair for one in similar for pair in (one, one[::-1])]
        for kind, pairs in (("image-in-two-sets", same), ("image-similar", alike)):
            for path, other in pairs:
                if path in test and other in train:
                    problems.append(_about(kind, test, path, other, train_name))


def look_alikes(
    paths: Iterable[Path], *, decode: bool = True, progress: bool = False
) -> tuple[list[list[Path]], list[tuple[Path, Path]]]:
    """Groups of files with the same content, and pairs of others that look the same.

    Args:
        decode: look for the pairs, which takes the pictures' decoding.
    """
    paths = sorted(paths)
    groups = [sorted(group) for group in same_content(paths)]
    if not decode:
        return groups, []
    hashes = {
        path: difference_hash(path)
        for path in tqdm(paths, desc="comparing", unit="", disable=not progress)
    }
    twins = {path: group for group in groups for path in group}
    return groups, [p for p in similar_pairs(hashes) if p[1] not in twins.get(p[0], ())]


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
    changes = {}
    for one in checked:
        for path in (one.files.json_file, one.files.image_root):
            if not path.resolve().is_relative_to(root.resolve()):
                raise UserError(f"--fix: {path} is not in {root}, so it has no place in the copy")
        folder = one.files.image_root.relative_to(root)
        for path, image in one.pictures().items():
            copies[output / folder / image["file_name"]] = path
        changes[one.files.name] = [
            {**problem_to_json(problem), "remedy": KINDS[problem.kind].remedy}
            for problem in one.problems
            if KINDS[problem.kind].remedy
        ]
    for target, path in tqdm(copies.items(), desc="copying", unit="", disable=len(copies) < 1000):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    for one in checked:
        target = output / one.files.json_file.relative_to(root)
        write_json(one.inspection.content, target)
        (output / one.files.image_root.relative_to(root)).mkdir(parents=True, exist_ok=True)
    write_json(changes, output / "changes.json", indent=2)


def problem_to_json(problem: Problem) -> dict:
    """Plain data, without what is empty."""
    values = {"severity": problem.severity.value, **vars(problem)}
    return {key: value for key, value in values.items() if value not in (None, "")}
