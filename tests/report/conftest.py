"""A run to report on."""

import json

import pytest

import train_net
from project.data.segmentation import compressed_rle, decode_segmentation
from project.files import sha256_of
from tests.helpers import SMALL_CONFIG


@pytest.fixture(scope="package")
def trained(generated_root, tmp_path_factory):
    """A run of two iterations, whose detections are then made nearly right."""
    folder = tmp_path_factory.mktemp("report") / "run"
    opts = ["MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(generated_root), "OUTPUT_DIR", str(folder)]
    opts += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "SEED", "1"]
    opts += ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1"]
    train_net.main(["--config-file", str(SMALL_CONFIG), *opts])
    rewrite(folder, generated_root, lambda number: 0.95 - 0.02 * number)
    return folder


def rewrite(folder, generated_root, score) -> None:
    """Every third object is missed, every fourth is of another class."""
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    detections = []
    for number, a in enumerate(truth["annotations"]):
        if number % 3 == 2:
            continue
        mask = decode_segmentation(a["segmentation"], *sizes[a["image_id"]])
        category_id = 1 + a["category_id"] % 20 if number % 4 == 1 else a["category_id"]
        item = {"image_id": a["image_id"], "bbox": a["bbox"], "score": score(number)}
        item |= {"category_id": category_id, "segmentation": compressed_rle(mask)}
        detections.append(item)
    path = folder / "inference/tiny_voc_test_annotated/detections.json"
    path.write_text(json.dumps(detections))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["detections_sha256"] = sha256_of(path)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
