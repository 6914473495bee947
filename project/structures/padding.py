"""Rows of pictures that have different numbers of them, in one tensor."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def pad_rows(rows: Sequence[torch.Tensor], multiple: int) -> torch.Tensor:
    """The rows of each of N pictures, filled up with zeros to as many for each.

    Args:
        rows: of each picture. Shape (R_n, ...).
        multiple: so that there are few different numbers of rows.

    Returns:
        Shape (N, R, ...); R is the next multiple of ``multiple``, and at least one of it.
    """
    longest = max([len(x) for x in rows], default=0)
    number = max(-(-longest // multiple), 1) * multiple
    return torch.stack([F.pad(x, [0, 0] * (x.ndim - 1) + [0, number - len(x)]) for x in rows])
