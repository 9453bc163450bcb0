"""What has to be beaten: each baseline by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import baselines
from casesim.adaptive.ensemble import Weight

from .test_selection import predicted, select

TRAIN = ["u", "v", "w", "x", "y"]


def selection() -> pd.DataFrame:
    return select(predicted(b=0.70, u=0.5, v=0.5, w=0.5, x=0.72, y=0.74), 0.02)


def test_ensembles() -> None:
    found = baselines.ensembles("c", selection(), TRAIN, ["u", "w"], 3, 2, seed=0)
    assert list(found) == [
        "adaptive",
        "uniform_all",
        "uniform_without_worst",
        "random_1",
        "random_2",
    ]
    assert np.sum(list(found["adaptive"].values()), axis=0) == pytest.approx([1, 1, 1])
    assert set(found["uniform_all"]) == {"base", *(f"finetuned/{t}" for t in TRAIN)}
    assert set(found["uniform_without_worst"]) == {
        *("base", "finetuned/v", "finetuned/x", "finetuned/y")
    }
    assert all(len(found[f"random_{draw}"]) == 3 for draw in (1, 2))
    assert set(found["random_1"].values()) == {1.0}


def test_random_ensembles_differ_by_case_draw_and_seed_and_by_nothing_else() -> None:
    def drawn(case: str, seed: int) -> dict[str, dict[str, Weight]]:
        return baselines.ensembles(case, selection(), TRAIN, [], 3, 8, seed)

    every = [
        tuple(drawn(case, seed)["random_1"]) for case in "abcdef" for seed in (0, 1)
    ]
    assert len(set(every)) > 4
    assert len({tuple(drawn("c", 0)[f"random_{d}"]) for d in range(1, 9)}) > 3
    assert drawn("c", 0) == drawn("c", 0)


def test_nearest_by_image() -> None:
    of_train = {
        "far": [[0.0, 1.0], [0.0, 7.0]],
        "near": [[2.0, 3.0], [0.0, 7.0]],
        "also": [[2.0, 3.0], [0.0, 7.0]],
    }
    # The constant column would decide if it counted.
    assert baselines.nearest_by_image(of_train, [[1.9, 3.0], [0.0, -99.0]]) == "also"
    assert baselines.nearest_by_image(of_train, [[0.1, 1.1], [0.0, 7.0]]) == "far"


def test_single_models() -> None:
    means = {
        "base": 0.6,
        "finetuned/u": 0.9,
        "finetuned/v": 0.9,
        "finetuned/w": math.nan,
    }
    found = baselines.single_models(selection(), means, nearest="w")
    assert found == {
        "base": "base",
        "pick": "finetuned/y",
        "best_row_mean": "finetuned/u",
        "confidence_alone": "base",  # the first of `predicted` is the most confident
        "nearest_by_image": "finetuned/w",
    }
    assert "nearest_by_image" not in baselines.single_models(selection(), means, None)


def test_oracle() -> None:
    dice = pd.DataFrame(
        {
            "model": ["base", "x", "base", "x"],
            "case": ["c", "c", "d", "d"],
            "region": "a",
            "dice": [0.5, 0.7, math.nan, math.nan],
        }
    )
    found = baselines.oracle(dice).set_index("case")["dice"]
    assert found["c"] == 0.7
    assert math.isnan(found["d"])
