"""When a loss explodes, the cases of its batch are named."""

import math

import torch

from casesim.training.divergence import name_cases


def test_a_case_with_strange_values_is_to_blame() -> None:
    data = torch.zeros(4, 2, 8, 8)
    data[1, 1, 3, 3] = -250.0
    data[2, 0, 0, 0] = 3.0
    data[3, 0, 0, 0] = math.nan
    text = name_cases({"data": data, "keys": ["a", "b", "c", "d"]})
    assert "deviations: d (up to inf), b (up to 250). Look at these images" in text
    assert "c (" not in text


def test_a_batch_without_strange_values_is_named_all_the_same() -> None:
    data = torch.full((3, 1, 4, 4), 2.5)
    text = name_cases({"data": data, "keys": ["b", "a", "b"]})
    assert text.startswith("Its batch was made of a, b, whose values are as they")
