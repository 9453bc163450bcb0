"""The prediction for the delivered segmentation, and its words."""

import math

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import outlook
from casesim.adaptive.outlook import AS_GOOD, BELOW, LOOK, UNCALIBRATED, UNLIKE


def test_members_are_heard_by_their_weight() -> None:
    selection = pd.DataFrame(
        {
            "predicted_dice": [0.8, 0.6, math.nan],
            "spread": [0.1, 0.2, math.nan],
            "weight": [0.75, 0.25, 0.0],
        }
    )
    assert outlook.weighted(selection) == pytest.approx((0.75, 0.125))


def test_learnt_by_hand() -> None:
    cases = pd.DataFrame(
        {
            "predicted": [0.5, 0.6, 0.7, math.nan],
            "spread": [0.1, 0.2, 0.1, 0.1],
            "dice": [0.6, 0.7, 0.6, 0.9],
        }
    )
    found = outlook.learn(cases, 0.5)
    assert found.offset == pytest.approx(0.1)
    # Errors beyond the offset: 0, 0 and 0.2, in units of the spread 0, 0 and 2.
    assert found.quantile == pytest.approx(0)
    assert outlook.learn(cases, 0.75).quantile == pytest.approx(2)
    assert outlook.learn(cases, 0.76).quantile == math.inf
    assert found.dice == (0.6, 0.6, 0.7)
    # Two patients, the second with errors 0 and 2: 1/3 and 1/6 each, the rest beyond.
    patients = {"1": "p", "2": "p"}
    cases.index = cases.index.map(str)
    assert outlook.learn(cases, 0.6, patients).quantile == pytest.approx(2)
    assert outlook.learn(cases, 0.7, patients).quantile == math.inf
    predicted = outlook.predict(outlook.learn(cases, 0.75), 0.5, 0.05)
    assert predicted == pytest.approx((0.6, 0.5, 0.7))
    assert outlook.predict(outlook.learn(cases, 0.75), 0.95, 0.05) == pytest.approx(
        (1, 0.9, 1)
    )


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        spread = generator.uniform(0.02, 0.1, 41)
        predicted = generator.uniform(0.3, 0.7, 41)
        dice = predicted + 0.05 + spread * generator.normal(size=41)
        cases = pd.DataFrame({"predicted": predicted, "spread": spread, "dice": dice})
        learnt = outlook.learn(cases[:40], 0.9)
        _, low, high = outlook.predict(learnt, predicted[40], spread[40])
        inside.append(low <= dice[40] <= high)
    assert 0.86 < np.mean(inside) < 0.95


def test_words() -> None:
    learnt = outlook.Outlook(0.0, 1.0, (0.4, 0.6, 0.7, 0.8, 0.9))
    assert outlook.words(learnt, 0.7, 0.5) == AS_GOOD
    assert outlook.words(learnt, 0.69, 0.5) == BELOW
    assert outlook.words(learnt, 0.6, math.nan) == BELOW
    assert outlook.words(learnt, 0.59, 0.5) == LOOK
    assert outlook.words(learnt, 0.9, 0.96) == UNLIKE
    assert outlook.words(learnt, math.nan, 0.5) == UNCALIBRATED


def test_nothing_is_said_without_calibration_cases() -> None:
    cases = pd.DataFrame({"predicted": [math.nan], "spread": [0.1], "dice": [0.5]})
    learnt = outlook.learn(cases, 0.9)
    assert learnt.quantile == math.inf
    assert outlook.words(learnt, 0.9, 0.0) == UNCALIBRATED
