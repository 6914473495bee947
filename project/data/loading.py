"""The stream of training batches: the same whenever it is read again, from any point on."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from threading import Thread

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from project.data.copy_paste import CopyPaste
from project.data.mapper import build_mapper
from project.errors import UserError, require_choice
from project.seeding import derived_seed, seeded

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
# What asks a run to stop: Ctrl-C, what clusters send before they take the machine away, and a
# terminal that is closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_SHUFFLE, _AUGMENT = 0, 1  # what a seed is for


class BatchStream(Sampler[list[tuple[int, int]]]):
    """An endless stream of batches; an epoch is every picture in a new order.

    The pictures of a batch are all wide or all high, so that little is padded. The stream is one
    for all processes, each of which takes its share of every batch: the number of processes changes
    nothing, and the batches from iteration ``start`` on are found by counting.

    Args:
        num_pictures: of the data set.
        batch_size: of all processes together.
        seed: of the orders.
        is_wide: of each picture; None where orientations may mix.
        repeat_factors: how often each picture is in an epoch, fractions on average; None for once.
            Float, shape (num_pictures,).
        start: batches to leave out at the beginning.
        rank, world_size: which share, of how many.

    Yields:
        (number in the stream, index in the data set) of each picture of the share.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        *,
        seed: int,
        is_wide: Sequence[bool] | None = None,
        repeat_factors: torch.Tensor | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.num_pictures = num_pictures
        self.batch_size = batch_size
        self.seed = seed
        self.is_wide = [False] * num_pictures if is_wide is None else list(is_wide)
        self.repeat_factors = repeat_factors
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world_size
        first = self.rank * share
        for batch in islice(self._batches(), self.start, None):
            yield batch[first : first + share]

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        for number, index in enumerate(self._indices()):
            bucket = waiting[self.is_wide[index]]
            bucket.append((number, index))
            if len(bucket) == self.batch_size:
                yield bucket.copy()
                bucket.clear()

    def _indices(self) -> Iterator[int]:
        for epoch in count():
            order = torch.Generator().manual_seed(derived_seed(self.seed, _SHUFFLE, epoch))
            indices = torch.arange(self.num_pictures)
            if self.repeat_factors is not None:
                once_more = torch.rand(len(indices), generator=order) < self.repeat_factors.frac()
                repeats = self.repeat_factors.long() + once_more
                indices = indices.repeat_interleave(repeats)
            yield from indices[torch.randperm(len(indices), generator=order)].tolist()


class AugmentedDataset(Dataset):
    """Pictures as the model sees them; what is random depends on the number in the stream."""

    def __init__(self, records: Sequence[dict], mapper, seed: int):
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: tuple[int, int]) -> dict:
        number, index = item
        with seeded(self.seed, _AUGMENT, number):
            return self.mapper(self.records[index])


def training_records(cfg: CfgNode) -> list[dict]:
    """Detectron2's records of the pictures of ``DATASETS.TRAIN``.

    Those without objects, crowds apart, are left out, or are negatives where
    ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` is False.

    Raises:
        UserError: no picture is left.
    """
    names = list(cfg.DATASETS.TRAIN)
    try:
        return get_detection_dataset_dicts(
            names, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
    except AssertionError as error:
        raise UserError(f"{', '.join(names)}: no picture has an object to train on") from error


def build_training_mapper(cfg: CfgNode, records: Sequence[dict]) -> Callable[[dict], dict]:
    """The mapper of a config, with copy-paste from ``records`` where it asks for that."""
    mapper = build_mapper(cfg, is_train=True)
    probability = cfg.INPUT.COPY_PASTE.PROBABILITY
    return CopyPaste(mapper, records, probability) if probability else mapper


def require_divisible_batch(cfg: CfgNode, num_processes: int) -> None:
    """Raise :class:`UserError` unless every process gets equally many pictures of a batch."""
    batch_size, accumulate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    parts = num_processes * accumulate
    if batch_size < 1 or parts < 1 or batch_size % parts:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch_size} is the total over {num_processes} process(es)"
            f" (--num-gpus, or SOLVER.REFERENCE_WORLD_SIZE) and SOLVER.ACCUMULATE {accumulate}"
            f" part(s); choose a multiple of {max(parts, 1)}, and"
            " SOLVER.BASE_LR in proportion"
        )


def build_train_loader(
    cfg: CfgNode, records: Sequence[dict], *, seed: int, start: int = 0
) -> DataLoader:
    """The training batches for this process, from iteration ``start`` on.

    ``DATALOADER.SAMPLER_TRAIN`` RepeatFactorTrainingSampler shows pictures of rare classes more
    often (LVIS, Gupta et al. 2019, section 5.1), from ``DATALOADER.REPEAT_THRESHOLD`` on. The
    stream has no end, so that workers live as long as it is read.

    Args:
        records: of :func:`training_records`.
        seed: of the order of pictures and of their augmentation.

    Raises:
        UserError: the batch cannot be shared evenly among processes, or the sampler is unknown.
    """
    require_choice("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS)
    batch_size, world_size = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    require_divisible_batch(cfg, world_size)
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    repeat_factors = None
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        repeat_factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD
        )
    stream = BatchStream(
        len(records),
        batch_size,
        seed=seed,
        is_wide=[record["width"] > record["height"] for record in records] if grouped else None,
        repeat_factors=repeat_factors,
        start=start,
        rank=comm.get_rank(),
        world_size=world_size,
    )
    stored = DatasetFromList(records, copy=False)  # in less memory, which workers share
    return DataLoader(
        AugmentedDataset(stored, build_training_mapper(cfg, stored), seed),
        batch_sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
        worker_init_fn=start_worker,
    )


def start_worker(worker: int) -> None:
    """``worker_init_fn`` of a ``DataLoader`` in a program that signals stop in good order."""
    # A worker is one thread of the machine; and threads of OpenCV do not survive a fork.
    cv2.setNumThreads(0)
    _leave_signals_to_the_main_process()


def _leave_signals_to_the_main_process() -> None:
    # Ctrl-C and a cluster's signals reach the workers too; the main process needs them for the
    # rest of its iteration. They end when it does.
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    # With SIGTERM the main process itself ends them, at its exit at the latest: it waits for that.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(process_id: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != process_id:
        pass
    os._exit(0)
