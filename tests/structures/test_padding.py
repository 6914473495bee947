"""Rows are filled up with zeros, to a multiple."""

import pytest
import torch

from project.structures.padding import pad_rows


@pytest.mark.parametrize(
    ("numbers", "expected"), [((3, 0), 4), ((4, 1), 4), ((5, 2), 8), ((0, 0), 4), ((0,), 4)]
)
def test_rows_are_followed_by_zeros(numbers, expected):
    for shape in ((), (4,), (2, 3)):
        rows = [torch.rand(number, *shape) + 1 for number in numbers]
        padded = pad_rows(rows, 4)
        assert padded.shape == (len(rows), expected, *shape)
        for given, found in zip(rows, padded, strict=True):
            assert torch.equal(found[: len(given)], given) and not found[len(given) :].any()


def test_the_dtype_stays():
    assert pad_rows([torch.ones(2, dtype=torch.int64)], 3).dtype == torch.int64
