"""Quality of predictions, by hand and against scipy."""

import math

import pandas as pd
import pytest

from casesim.adaptive import quality


def test_by_hand() -> None:
    dice = pd.Series({"a": 0.5, "b": 0.7, "c": 0.9, "d": math.nan})
    predicted = pd.Series({"a": 0.6, "b": 0.6, "c": 0.9, "d": 0.5})
    found = quality.of_predictions(
        predicted, dice, 0.6, low=predicted - 0.05, high=predicted + 0.1
    )
    assert found == {
        "n": 3,
        "n_undefined": 1,
        "mae": pytest.approx(0.2 / 3),
        "mae_of_mean": pytest.approx((0.1 + 0.1 + 0.3) / 3),
        "mae_ratio": pytest.approx(0.4),
        "bias": pytest.approx(0),
        "rank_correlation": pytest.approx(math.sqrt(3) / 2),
        "coverage": pytest.approx(2 / 3),
        "width": pytest.approx(0.15),
    }


def test_nothing_is_said_of_a_single_case() -> None:
    one = pd.Series({"a": 0.5})
    found = quality.of_predictions(one, one, 0.5)
    assert found["n"] == 1
    assert math.isnan(found["mae"])
    assert math.isnan(quality.spearman(pd.Series([1, 2, 3]), pd.Series([4, 4, 4])))


def test_within_columns_leaves_base_and_worst_cluster_out() -> None:
    table = pd.DataFrame(
        {
            "model": ["base", *(f"finetuned/{t}" for t in "wxyz")] * 2,
            "case": ["c"] * 5 + ["d"] * 5,
            "dice": [0.9, 0.0, 0.1, 0.2, 0.3, 0.9, 0.0, 0.1, 0.2, 0.3],
            "good": [0.0, 0.9, 1, 2, 3, 0.0, 0.9, 1, 2, 3],
            "mixed": [0.0, 0.9, 1, 2, 3, 0.0, 0.9, 3, 2, 1],
        }
    )
    found = quality.within_columns(table, ["good", "mixed"], removed=["w"])
    assert found["good"].to_dict() == pytest.approx({"c": 1, "d": 1})
    assert found["mixed"].to_dict() == pytest.approx({"c": 1, "d": -1})
    mean = quality.mean_with_interval(found["mixed"])
    assert mean["mean"] == pytest.approx(0)
    assert mean["ci_low"] == pytest.approx(-1)
    assert mean["ci_high"] == pytest.approx(1)
    assert math.isnan(quality.mean_with_interval(found["mixed"] * math.nan)["mean"])


def test_auroc() -> None:
    score = pd.Series([0.1, 0.4, 0.35, 0.8, None])
    poor = pd.Series([False, False, True, True, True])
    assert quality.auroc(score, poor) == pytest.approx(0.75)
    assert math.isnan(quality.auroc(score, poor & False))


def test_who_is_poor_is_not_asked_where_nobody_knows() -> None:
    score = pd.Series([0.9, 0.1, 1.0, 0.5])
    poor = pd.Series([True, False, None, False], dtype="object")
    assert quality.auroc(score, poor) == 1
    # Taken for a good case, the third would have been told wrongly.
    assert quality.auroc(score, poor.fillna(False)) < 1
