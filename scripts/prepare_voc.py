#!/usr/bin/env python
"""Turn PASCAL VOC's segmentations (2007 or 2012) into the tiny-VOC layout, to train on.

python scripts/prepare_voc.py VOCtrainval_11-May-2012.tar data
python scripts/prepare_voc.py VOCdevkit/VOC2012 data --train-set train --test-set val

The masks are those of SegmentationObject, to the pixel: polygons along pixel edges, or an RLE where
a mask has holes. The void border belongs to no object. The kit is that of PASCAL VOC's own site, or
what torchvision.datasets.VOCSegmentation(..., download=True) leaves.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from project.data.checking.inspection import VOC_NAMES
from project.data.segmentation import compressed_rle, mask_fields, polygons
from project.data.voc_devkit import VOCDevkit
from project.errors import UserError, reports_user_errors
from project.files import require_new_folder, write_json

CATEGORIES = [{"id": i, "name": name} for i, name in enumerate(VOC_NAMES, start=1)]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kit", type=Path, help="the kit's folder, or the tar that was downloaded")
    parser.add_argument("root", type=Path, help="the folder to write to")
    parser.add_argument("--train-set", default="train", help="list of training pictures (train)")
    parser.add_argument("--test-set", default="val", help="list of test pictures (val)")
    return parser


@reports_user_errors
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    kit = VOCDevkit(args.kit)
    names = {"train": kit.names(args.train_set), "test": kit.names(args.test_set)}
    both = set(names["train"]) & set(names["test"])
    if both:
        raise UserError(
            f"{len(both)} picture(s) are in {args.train_set} and in {args.test_set}"
            f" ({min(both)}, ...): choose lists without common pictures"
        )
    require_new_folder(args.root)
    first_id = 1
    for split, json_name in (("train", "pascal_train.json"), ("test", "test_annotations.json")):
        content = write_split(kit, names[split], args.root / f"{split}_images", first_id)
        first_id += len(names[split])
        write_json(content, args.root / json_name)
        print(
            f"{args.root / json_name}: {len(content['images'])} images,"
            f" {len(content['annotations'])} objects"
        )
    without = {key: value for key, value in content.items() if key != "annotations"}
    write_json(without, args.root / "test.json")


def write_split(kit: VOCDevkit, names: list[str], folder: Path, first_id: int) -> dict:
    """Copy the pictures to ``folder``; the content of their COCO JSON, images numbered on."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for image_id, name in enumerate(tqdm(names, desc=folder.name, unit="picture"), start=first_id):
        picture = kit.picture(name)
        (folder / f"{name}.jpg").write_bytes(picture.jpeg)
        height, width = picture.instances.shape
        image = {"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height}
        images.append(image)
        for category_id, mask in picture.objects():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    **mask_fields(mask, polygons(mask) or compressed_rle(mask)),
                }
            )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


if __name__ == "__main__":
    main()
