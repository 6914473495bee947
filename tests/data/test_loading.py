"""The stream of batches and what loads them: the same however it is read, and errors with names."""

from itertools import chain

import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler

from project.data.loading import BatchStream, build_train_loader, training_records
from project.data.mapper import build_mapper
from project.errors import UserError
from tests.helpers import load_small_config


def batches(stream: BatchStream, number: int) -> list[list[tuple[int, int]]]:
    iterator = iter(stream)
    return [next(iterator) for _ in range(number)]


@pytest.mark.parametrize("start", [0, 1, 7, 40])
def test_the_stream_goes_on_from_any_batch(start):
    wide = [index % 3 == 0 for index in range(11)]
    whole = batches(BatchStream(11, 4, seed=5, is_wide=wide), 60)
    assert (
        batches(BatchStream(11, 4, seed=5, is_wide=wide, start=start), 20)
        == whole[start : start + 20]
    )


def test_an_epoch_has_every_picture_once_and_the_next_another_order():
    indices = [index for batch in batches(BatchStream(8, 2, seed=0), 8) for _, index in batch]
    first, second = indices[:8], indices[8:]
    assert sorted(first) == sorted(second) == list(range(8)) and first != second


def test_the_pictures_of_a_batch_have_one_orientation_and_none_is_lost():
    wide = [index % 3 == 0 for index in range(30)]
    seen = [
        [index for _, index in batch]
        for batch in batches(BatchStream(30, 4, seed=1, is_wide=wide), 300)
    ]
    assert all(len({wide[index] for index in batch}) == 1 for batch in seen)
    counts = torch.bincount(torch.tensor(seen).flatten(), minlength=30)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_of_one(world_size):
    whole = batches(BatchStream(11, 4, seed=5), 20)
    shares = [
        batches(BatchStream(11, 4, seed=5, rank=rank, world_size=world_size), 20)
        for rank in range(world_size)
    ]
    assert [[*chain(*parts)] for parts in zip(*shares, strict=True)] == whole


AUGMENTED = (
    *("INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.SIZE", "128"),
    *("INPUT.COLOR_JITTER.ENABLED", "True", "INPUT.CROP.ENABLED", "True"),
    *("INPUT.COPY_PASTE.PROBABILITY", "0.8"),
    *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    *("DATALOADER.REPEAT_THRESHOLD", "0.5"),
)


@pytest.mark.parametrize("opts", [("INPUT.MIN_SIZE_TRAIN", "(64, 96)"), AUGMENTED])
def test_what_a_picture_looks_like_depends_on_its_number_only(small_opts, opts):
    looks = []
    for workers in ("0", "2"):
        cfg = load_small_config([*small_opts, *opts, "DATALOADER.NUM_WORKERS", workers])
        torch.manual_seed(int(workers))  # what ran before does not matter
        records = training_records(cfg)
        loader = iter(build_train_loader(cfg, records, seed=9))
        looks.append([record["image"] for _ in range(4) for record in next(loader)])
    assert all(torch.equal(a, b) for a, b in zip(*looks, strict=True))
    later = next(iter(build_train_loader(cfg, records, seed=9, start=3)))
    assert torch.equal(later[0]["image"], looks[0][6])


def test_a_batch_that_cannot_be_shared_is_one_line(small_opts, monkeypatch):
    monkeypatch.setattr("project.data.loading.comm.get_world_size", lambda: 3)
    with pytest.raises(UserError, match="choose a multiple of 3"):
        build_train_loader(load_small_config(small_opts), [], seed=0)


def test_a_picture_is_repeated_as_often_as_its_factor_says():
    factors = torch.tensor([1.0, 1.0, 1.5, 3.0, 1.0, 2.25])
    stream = BatchStream(6, 1, seed=0, repeat_factors=factors)
    indices = torch.tensor([batch[0][1] for batch in batches(stream, 9750)])
    counts = torch.bincount(indices)
    assert torch.allclose(counts / 1000, factors, atol=0.06)
    assert [batch[0][0] for batch in batches(stream, 50)] == list(range(50))


def test_pictures_of_rare_classes_come_more_often(small_opts):
    pairs = ["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"]
    pairs += ["DATALOADER.REPEAT_THRESHOLD", "0.5"]
    cfg = load_small_config([*small_opts, *pairs])
    records = training_records(cfg)
    stream = build_train_loader(cfg, records, seed=0).batch_sampler
    expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.5)
    assert torch.equal(stream.repeat_factors, expected) and expected.max() > 1.5


def test_an_unknown_sampler_is_refused(small_opts):
    cfg = load_small_config([*small_opts, "DATALOADER.SAMPLER_TRAIN", "Sampler"])
    with pytest.raises(UserError, match="choose one of TrainingSampler, RepeatFactor"):
        build_train_loader(cfg, training_records(cfg), seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_while_training_is_named_in_one_line(small_opts, tmp_path, workers):
    cfg = load_small_config([*small_opts, "DATALOADER.NUM_WORKERS", str(workers)])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 and no more")
    records = [{**record, "file_name": str(broken)} for record in training_records(cfg)]
    with pytest.raises(UserError, match="cannot be read") as caught:
        next(iter(build_train_loader(cfg, records, seed=0)))
    assert str(caught.value).startswith(f"{broken} ") and "\n" not in str(caught.value)

    DatasetCatalog.register("broken", lambda: records)
    try:
        loader = build_detection_test_loader(
            cfg, "broken", mapper=build_mapper(cfg, is_train=False)
        )
        with pytest.raises(UserError) as caught:
            next(iter(loader))
    finally:
        DatasetCatalog.remove("broken")
    assert str(caught.value).startswith(f"{broken} ") and "\n" not in str(caught.value)


def test_pictures_without_objects_are_left_out_or_are_negatives(small_opts):
    cfg = load_small_config(small_opts)
    records = DatasetCatalog.get("tiny_voc_train")
    only_crowd = {**records[0]}
    only_crowd["annotations"] = [{**records[0]["annotations"][0], "iscrowd": 1}]
    DatasetCatalog.register("sparse", lambda: [{**records[1], "annotations": []}, only_crowd])
    cfg.DATASETS.TRAIN = ("tiny_voc_train", "sparse")
    try:
        filtered = training_records(cfg)
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
        whole = training_records(cfg)
    finally:
        DatasetCatalog.remove("sparse")
    assert len(whole) == len(filtered) + 2
    negatives = [build_mapper(cfg, is_train=True)(record)["instances"] for record in whole[-2:]]
    assert [len(instances) for instances in negatives] == [0, 0]
