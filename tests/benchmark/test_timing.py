"""Programs take turns, and leave the process as it was."""

import torch

from project.benchmark.timing import Spread, one_core, ratio, take_turns


def test_programs_take_turns_and_the_first_round_does_not_count():
    calls = []
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "abbaabba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_of_the_same_round():
    assert ratio({"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]}, "a", "b") == Spread(2.0, 1.0, 3.0)


def test_one_core_is_left_as_it_was():
    before = torch.get_num_threads()
    with one_core():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
