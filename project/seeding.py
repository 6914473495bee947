"""Random numbers that depend on where training is, not on what ran before.

Every draw of a run comes from the run's seed and a position: the iteration, the number of a picture
in the stream of training pictures, the id of a picture. So a resumed run draws what the
uninterrupted one would have drawn, whatever the number of data-loading workers, and a checkpoint
needs to hold the seed only.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from detectron2.layers import nonzero_tuple


def derived_seed(*key: int) -> int:
    """A seed below 2^32 that depends on every number of ``key`` (none negative)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def seed_generators(*key: int) -> None:
    """Seed the global generators of Python, numpy and torch, on all devices."""
    seed = derived_seed(*key)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Inside, the global generators of the CPU are seeded by ``key``; then they are as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = derived_seed(*key)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


_generators: ContextVar[Sequence[torch.Generator] | None] = ContextVar("generators", default=None)


@contextmanager
def sampling_seeded(keys: Sequence[tuple[int, ...]], device: torch.device) -> Iterator[None]:
    """Inside, :func:`subsample_labels` draws for picture i from a generator of ``keys[i]``.

    Args:
        device: of the labels. A permutation of a picture's 200,000 anchors takes milliseconds on a
            CPU, for which a GPU would wait.
    """
    generators = [torch.Generator(device).manual_seed(derived_seed(*key)) for key in keys]
    token = _generators.set(generators)
    try:
        yield
    finally:
        _generators.reset(token)


def subsample_labels(
    labels: torch.Tensor, picture: int, num_samples: int, positive_fraction: float, background: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Detectron2's ``subsample_labels``, drawing from the picture's own generator.

    Outside of :func:`sampling_seeded` it draws from torch's global one, as Detectron2 does.

    Args:
        labels: -1 ignored, ``background``, or another class. Shape (N,).
        picture: its number in the batch.
        num_samples: how many to draw, at most ``positive_fraction`` of them positive.

    Returns:
        Indices of positives and of negatives, on the device of ``labels``.
    """
    generators = _generators.get()
    generator = None if generators is None else generators[picture]
    positive = nonzero_tuple((labels != -1) & (labels != background))[0]
    negative = nonzero_tuple(labels == background)[0]
    num_positive = min(len(positive), int(num_samples * positive_fraction))
    num_negative = min(len(negative), num_samples - num_positive)

    def draw(indices: torch.Tensor, number: int) -> torch.Tensor:
        order = torch.randperm(len(indices), generator=generator, device=indices.device)
        return indices[order[:number]]

    return draw(positive, num_positive), draw(negative, num_negative)
