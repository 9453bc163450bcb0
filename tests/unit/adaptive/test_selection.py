"""Ranks and weights, by hand."""

import math

import pandas as pd
import pytest

from casesim.adaptive import selection
from casesim.adaptive.selection import COLUMNS, by_class, leaned_on, members, suited

LABELS = ("edema", "core")


def predicted(**dice: float) -> pd.DataFrame:
    """Predictions by a short name: `b` is the base, others are train cases. The same in
    each label."""
    models = ["base" if name == "b" else f"finetuned/{name}" for name in dice]
    parts = [
        pd.DataFrame(
            {
                "model": models,
                "case": "c",
                "region": region,
                "predicted_dice": list(dice.values()),
                "spread": 0.05,
                "low": 0.1,
                "high": 0.9,
                "confidence": [0.9 - 0.1 * i for i in range(len(dice))],
            }
        )
        for region in (*LABELS, "mean")
    ]
    return pd.concat(parts, ignore_index=True)


def select(given: pd.DataFrame, temperature: float) -> pd.DataFrame:
    return selection.select(given, "mean", LABELS, temperature)


def test_weights_by_hand() -> None:
    found = select(predicted(b=0.70, x=0.72, y=0.74, z=0.20), temperature=0.02)
    assert list(found) == [*COLUMNS, "weight_edema", "weight_core"]
    assert list(found["model"]) == [
        "finetuned/y",
        "finetuned/x",
        "base",
        "finetuned/z",
    ]
    assert list(found["rank"]) == [1, 2, 3, 4]
    total = 1 + math.exp(-1) + math.exp(-2)
    expected = [1 / total, math.exp(-1) / total, math.exp(-2) / total, 0]
    assert found["weight"].to_list() == pytest.approx(expected)
    assert found["calibrated"].all()
    assert members(found) == pytest.approx(
        dict(zip(["finetuned/y", "finetuned/x", "base"], expected, strict=False))
    )
    assert by_class(found) == {
        model: pytest.approx([weight] * 3) for model, weight in members(found).items()
    }
    assert leaned_on(found, 1) == ["y"]
    # The last one is not heard: the segmentation does not lean on it.
    assert leaned_on(found, 9) == ["y", "x"]
    assert suited(found, 9) == ["y", "x", "z"]
    assert suited(found, 2) == ["y", "x"]
    assert leaned_on(select(predicted(b=0.9, x=0.5), 0.02), 3) == []


def test_what_weighs_most_is_leaned_on_most() -> None:
    """Whatever the ranks are by: x is best in the mean, and heard nowhere."""
    given = predicted(b=0.5, x=0.7, y=0.7)
    of_x = given["model"] == "finetuned/x"
    given.loc[of_x & (given["region"] != "mean"), "predicted_dice"] = 0.4
    found = select(given, 0.02)
    assert suited(found, 2) == ["x", "y"]
    assert leaned_on(found, 2) == ["y"]


@pytest.mark.parametrize("number", [101, 485])
def test_of_many_models_alike_all_are_heard(number: int) -> None:
    """None reaches a hundredth."""
    models = {"b": 0.7} | {f"t{i}": 0.7 for i in range(number - 1)}
    found = select(predicted(**models), 0.02)
    assert found["weight"].to_list() == pytest.approx([1 / number] * number)
    worse = {name: 0.66 if name == "t7" else dice for name, dice in models.items()}
    # exp(-2) is less than half of the others.
    weights = dict(select(predicted(**worse), 0.02)[["model", "weight"]].to_numpy())
    assert weights.pop("finetuned/t7") == 0
    assert list(weights.values()) == pytest.approx([1 / (number - 1)] * (number - 1))


def test_a_model_is_heard_where_it_is_good() -> None:
    given = predicted(b=0.7, x=0.7)
    of_x = given["model"] == "finetuned/x"
    given.loc[of_x & (given["region"] == "core"), "predicted_dice"] = 0.1
    found = select(given, 0.02)
    assert by_class(found) == {
        "base": pytest.approx([0.75, 0.5, 1.0]),
        "finetuned/x": pytest.approx([0.25, 0.5, 0.0]),
    }
    # A label that nothing is known of: as in the mean.
    unknown = given.assign(
        predicted_dice=given["predicted_dice"].where(given["region"] == "mean")
    )
    assert by_class(select(unknown, 0.02))["base"] == [0.5] * 3
    # Asked for one label, the others are weighted as that one.
    only = selection.select(given, "core", LABELS, 0.02)
    assert by_class(only) == {"base": [1.0] * 3}
    assert list(only["model"]) == ["base", "finetuned/x"]


def test_the_order_of_rows_does_not_matter_and_ties_go_by_name() -> None:
    given = predicted(x=0.5, b=0.5, a=0.5)
    found = select(given, 0.02)
    assert list(found["model"]) == ["base", "finetuned/a", "finetuned/x"]
    again = select(given.iloc[::-1], 0.02)
    pd.testing.assert_frame_equal(found, again)


def test_undefined_predictions_come_last_and_are_not_heard() -> None:
    found = select(predicted(b=math.nan, x=0.5), 0.02)
    assert list(found["model"]) == ["finetuned/x", "base"]
    assert list(found["weight"]) == [1, 0]


def test_without_calibration_the_raw_confidence_ranks() -> None:
    found = select(predicted(b=math.nan, x=math.nan), 0.02)
    assert list(found["model"]) == ["base", "finetuned/x"]
    assert not found["calibrated"].any()
    assert found["predicted_dice"].isna().all()
    assert found["weight"][0] == pytest.approx(1 / (1 + math.exp(-5)), abs=0.01)
    nothing = predicted(b=math.nan).assign(confidence=math.nan)
    with pytest.raises(ValueError, match="no model has"):
        select(nothing, 0.02)
