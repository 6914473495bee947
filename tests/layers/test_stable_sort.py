"""Of equal numbers, the first one stays the first."""

import torch

from project.layers.stable_sort import StableSort


def test_equal_numbers_keep_their_order():
    values = torch.arange(4.0).repeat_interleave(2000)[torch.randperm(8000)]
    with StableSort():
        ordered, indices = values.sort(descending=True, dim=0)
    assert torch.equal(ordered, values[indices])
    for number in range(4):
        same = indices[ordered == number]
        assert len(same) == 2000 and torch.equal(same, same.sort().values)
    # Else this test says nothing about the context.
    _, plain = torch.zeros(3000).sort(descending=True)
    assert not torch.equal(plain, torch.arange(3000))
