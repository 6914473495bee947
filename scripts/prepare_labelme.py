#!/usr/bin/env python
"""Turn a folder that was annotated with labelme into a data set to train on.

python scripts/prepare_labelme.py annotated data/mine
python scripts/split_dataset.py data/mine

Every JSON in the folder, at any depth, is a picture; those without shapes are pictures without
objects. Polygons, rectangles, circles and masks are objects; shapes of one label and one group are
one object. Points and lines are left out, and counted.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from tqdm import tqdm

from project.dependencies import require_detectron2
from project.errors import UserError, reports_user_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with labelme's JSON files and the pictures")
    parser.add_argument("root", type=Path, help="the folder to write to (DATASETS.ROOT)")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    require_detectron2()
    from project.data.labelme import read_labelme
    from project.data.layout import tiny_voc_files
    from project.data.reading import decode_image
    from project.files import require_new_folder, write_json

    require_new_folder(args.root)
    target = tiny_voc_files(args.root)["tiny_voc_train"]
    pictures = [read_labelme(path) for path in sorted(_json_files(args.folder))]
    if not pictures:
        raise UserError(f"{args.folder}: there is no JSON of labelme in it")
    names = _file_names(pictures, args.folder)
    images, objects, left_out = [], [], Counter()
    for number, (name, picture) in enumerate(tqdm(names.items(), desc="reading"), start=1):
        source = f"the picture of {picture.path}"
        height, width = decode_image(picture.image_bytes(), source).shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        found, outside = picture.objects(height, width)
        objects += [(number, *item) for item in found]
        if outside:
            left_out["object without a pixel in the picture"] += outside
    labels = sorted({label for _, label, _ in objects})
    if not labels:
        raise UserError(f"{args.folder}: no picture has an object")

    for name, picture in tqdm(names.items(), desc="copying"):
        copy = target.image_root / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(picture.image_bytes())
    category_ids = {label: number for number, label in enumerate(labels, start=1)}
    annotations = [
        {"id": number, "image_id": image_id, "category_id": category_ids[label], **fields}
        for number, (image_id, label, fields) in enumerate(objects, start=1)
    ]
    categories = [{"id": number, "name": label} for label, number in category_ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(content, target.json_file)
    left_out.update(kind for picture in pictures for kind in picture.left_out())
    print(f"{target.json_file}: {len(images)} images, {len(annotations)} objects")
    if left_out:
        print("left out:", ", ".join(f"{n} x {kind}" for kind, n in left_out.items()))


def _json_files(folder: Path) -> Iterator[Path]:
    """At any depth, also behind links to folders, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place) / name for name in names if name.endswith(".json"))


def _file_names(pictures: list, folder: Path) -> dict:
    """Pictures by the name that each has in the data set."""
    names, places = {}, set()
    for picture in pictures:
        # Links are not followed: names of stored content say nothing.
        place = Path(os.path.abspath(picture.path.parent / picture.image_name))
        root = Path(os.path.abspath(folder))
        if place in places:
            raise UserError(f"{picture.path}: {place.name} is annotated twice")
        places.add(place)
        # A picture elsewhere is called as its JSON: in two folders there may be two of a name.
        json_file = Path(os.path.abspath(picture.path)).relative_to(root)
        inside = place.is_relative_to(root) and not PureWindowsPath(picture.image_name).drive
        name = place.relative_to(root) if inside else json_file.with_suffix(place.suffix)
        if name.as_posix() in names:
            other = names[name.as_posix()].path
            raise UserError(f"{picture.path} and {other}: both pictures would be called {name}")
        names[name.as_posix()] = picture
    return names


if __name__ == "__main__":
    main()
