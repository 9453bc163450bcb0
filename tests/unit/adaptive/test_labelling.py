"""How far out a case lies, and which one to label first."""

import math

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import labelling

from .synthetic import cells


def test_novelty_by_hand() -> None:
    known = pd.DataFrame({"x": [0.0, 1.0, 3.0, 6.0], "constant": 1.0})
    # Nearest neighbours are 1, 1, 2 and 3 apart.
    asked = [(0.5, 0.0), (1.9, 0.0), (4.5, 0.5), (8.5, 0.75), (60.0, 1.0)]
    for value, expected in asked:
        case = pd.Series({"x": value, "constant": 5.0})
        assert labelling.novelty(known, case) == expected
    # What is unknown counts as the mean, which is 0.5 from its nearest neighbour.
    assert labelling.novelty(known, pd.Series({"x": math.nan, "constant": 1})) == 0
    assert math.isnan(labelling.novelty(known[:2], known.iloc[0]))
    # The first two are one patient: nearest of others are 3, 2, 2 and 3 apart.
    known.index = pd.Index([*"abcd"])
    case = pd.Series({"x": 8.5, "constant": 5.0})
    assert labelling.novelty(known, case, {"a": "a", "b": "a"}) == 0.5


def test_profiles_have_a_row_for_each_case() -> None:
    features = pd.concat([cells(4, 3), cells(4, 3, region="mean")]).drop(columns="dice")
    found = labelling.profiles(features)
    assert list(found.index) == [f"case{i:03d}" for i in range(4)]
    own = features.query("case == 'case002' and region == 'mean'")["expected_dice"]
    assert found.loc["case002", "confidence_median"] == pytest.approx(own.median())
    assert found.loc["case002", "confidence_sd"] == pytest.approx(own.std())
    base = features.query("case == 'case002' and region == 'a' and model == 'base'")
    assert found.loc["case002", "entropy a"] == base["entropy"].item()
    assert found.loc["case002", "volume_ml a"] == np.log1p(base["volume_ml"].item())


def test_the_worst_and_strangest_case_is_labelled_first() -> None:
    cases = pd.DataFrame(
        {
            "case": ["good", "odd", "bad", "unknown", "alike", "rare"],
            "predicted_dice": [0.9, 0.97, 0.7, math.nan, 0.9, 0.8],
            "confidence": [0.5, 0.5, 0.5, 0.95, 0.5, 0.5],
            "novelty": [0.0, 1.0, 0.0, 0.0, 0.0, 0.95],
        }
    )
    found = labelling.labelling_order(cases)
    # What is promised of a case unlike all others is worth nothing.
    assert list(found["case"]) == ["odd", "rare", "bad", "alike", "good", "unknown"]
    assert list(found["order"]) == [1, 2, 3, 4, 5, 6]
    assert found["expected_gain"].to_list() == pytest.approx(
        [2.0, 0.39, 0.3, 0.1, 0.1, 0.05]
    )
