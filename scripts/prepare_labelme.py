#!/usr/bin/env python
"""Turn a folder that was annotated with labelme into a data set to train on.

python scripts/prepare_labelme.py annotated data/mine
python scripts/split_dataset.py data/mine

Every JSON in the folder, at any depth, is a picture; those without shapes are pictures without
objects. Polygons, rectangles, circles and masks are objects; shapes of one label and one group are
one object. Points and lines are left out, and counted.
"""

import argparse
from collections import Counter
from pathlib import Path

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
    from project.files import require_new_folder, write_json

    pictures = [read_labelme(path) for path in sorted(args.folder.rglob("*.json"))]
    if not pictures:
        raise UserError(f"{args.folder}: there is no JSON of labelme in it")
    labels = sorted({str(shape["label"]) for p in pictures for shape in p.content["shapes"]})
    if not labels:
        raise UserError(f"{args.folder}: no picture has an object")
    require_new_folder(args.root)
    target = tiny_voc_files(args.root)["tiny_voc_train"]
    category_ids = {label: number for number, label in enumerate(labels, start=1)}
    images, annotations = [], []
    for picture in tqdm(pictures, unit="picture", mininterval=1):
        image = _copy(picture, args.folder, target.image_root, len(images) + 1)
        images.append(image)
        for label, fields in picture.objects(image["height"], image["width"]):
            number = {"id": len(annotations) + 1, "image_id": image["id"]}
            annotations.append({**number, "category_id": category_ids[label], **fields})
    categories = [{"id": number, "name": label} for label, number in category_ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(content, target.json_file)
    left_out = Counter(kind for picture in pictures for kind in picture.left_out())
    print(f"{target.json_file}: {len(images)} images, {len(annotations)} objects")
    if left_out:
        print("left out:", ", ".join(f"{n} x {kind}" for kind, n in left_out.items()))


def _copy(picture, folder: Path, image_root: Path, image_id: int) -> dict:
    """Copy a picture to the data set; its record."""
    from project.data.reading import read_image

    place = (picture.path.parent / picture.image_name).resolve()
    inside = place.is_relative_to(folder.resolve())
    name = place.relative_to(folder.resolve()).as_posix() if inside else place.name
    copy = image_root / name
    if copy.exists():
        raise UserError(f"{picture.path}: {name} is annotated twice")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(picture.image_bytes())
    height, width = read_image(copy).shape[:2]
    return {"id": image_id, "file_name": name, "width": width, "height": height}


if __name__ == "__main__":
    main()
