"""Write a data set as large as COCO, of tiny files, to time scripts/check_dataset.py with.

python tests/tools/large_dataset.py FOLDER [--pictures 100000] [--objects 8]
time python scripts/check_dataset.py FOLDER
"""

import argparse
import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

SIZES = ((640, 480), (500, 375), (480, 640))
NUM_CATEGORIES = 20


def jpeg(width: int, height: int, number: int) -> bytes:
    """A JPEG with the content of one pixel, whose header says another size; each is another."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1), number % 256).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    comment = b"\xff\xfe" + struct.pack(">HQ", 10, number)
    return bytes(data[:2]) + comment + bytes(data[2:])


def polygon(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Points on a circle inside the picture. Shape (N, 2)."""
    radius = random.uniform(10, 50)
    angles = np.linspace(0, 2 * np.pi, random.integers(8, 21), endpoint=False)
    centre = random.uniform(60, np.array([width, height]) - 60)
    return (centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).round(2)


def write_dataset(root: Path, pictures: int, objects: int) -> None:
    """Write ``root/train_images`` and ``root/pascal_train.json``."""
    random = np.random.default_rng(0)
    (root / "train_images").mkdir(parents=True)
    images, annotations = [], []
    for number in tqdm(range(1, pictures + 1), unit="picture"):
        width, height = SIZES[number % len(SIZES)]
        image = {"id": number, "file_name": f"{number:07d}.jpg", "width": width, "height": height}
        (root / "train_images" / image["file_name"]).write_bytes(jpeg(width, height, number))
        images.append(image)
        for _ in range(objects):
            points = polygon(random, width, height)
            low, size = points.min(axis=0), np.ptp(points, axis=0)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": number, "iscrowd": 0},
                    "category_id": int(random.integers(1, NUM_CATEGORIES + 1)),
                    "segmentation": [points.flatten().tolist()],
                    "bbox": [*low.tolist(), *size.round(2).tolist()],
                    "area": float((0.78 * size.prod()).round(2)),
                }
            )
    categories = [{"id": i, "name": f"class{i}"} for i in range(1, NUM_CATEGORIES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "pascal_train.json").write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=8, help="in each picture")
    args = parser.parse_args()
    write_dataset(args.root, args.pictures, args.objects)


if __name__ == "__main__":
    main()
