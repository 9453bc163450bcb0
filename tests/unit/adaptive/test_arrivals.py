"""What is told of new cases."""

import math

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import arrivals, outlook

from .synthetic import cells
from .test_selection import predicted, select


def regions(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.assign(region="mean")]).drop(columns="dice")


def told(learnt: outlook.Outlook, shift: float = 0.0) -> pd.DataFrame:
    selections = {
        "new001": select(predicted(b=0.5, x=0.7, y=0.6), 0.02),
        "new000": select(predicted(b=0.8, x=0.7, y=0.7), 0.02),
    }
    new = cells(2, 3, prefix="new", seed=4)
    new["volume_ml"] += shift
    return arrivals.table(
        selections,
        regions(new),
        regions(cells(12, 3)),
        learnt,
        2,
        {"new000": "a.nii.gz", "new001": "b.nii.gz"},
        own={"new001": "own.nii.gz"},
    )


LEARNT = outlook.Outlook(0.02, 2.0, (0.5, 0.6, 0.7, 0.75, 0.8))


def test_a_row_for_each_case() -> None:
    found = told(LEARNT)
    assert list(found) == list(arrivals.COLUMNS)
    assert list(found["case"]) == ["new000", "new001"]
    first = found.iloc[0]
    heard = select(predicted(b=0.8, x=0.7, y=0.7), 0.02)
    expected = outlook.weighted(heard.assign(spread=0.05))[0] + 0.02
    assert first["predicted_dice"] == pytest.approx(expected)
    assert first["low"] == pytest.approx(expected - 2 * 0.05)
    assert first["high"] == pytest.approx(expected + 2 * 0.05)
    assert first["words"] == outlook.AS_GOOD
    # The others are predicted to do worse by five temperatures, and are not heard.
    assert arrivals.names(first, "leans_on") == []
    assert first["segmentation"] == "a.nii.gz"
    second = found.iloc[1]
    assert arrivals.names(second, "models") == ["finetuned/x"]
    assert arrivals.names(second, "leans_on") == ["x"]
    assert [first["of_own_model"], second["of_own_model"]] == ["", "own.nii.gz"]
    assert second["confidence"] == pytest.approx(0.8)


def test_a_case_unlike_all_others_is_marked() -> None:
    found = told(LEARNT, shift=1e6)
    assert set(found["words"]) == {outlook.UNLIKE}
    # Nothing is promised of it.
    assert found[["low", "high"]].isna().all(axis=None)
    assert found["predicted_dice"].notna().all()


def test_nothing_is_promised_without_calibration() -> None:
    found = told(outlook.Outlook(math.nan, math.inf, ()))
    assert found[["predicted_dice", "low", "high"]].isna().all(axis=None)
    assert set(found["words"]) == {outlook.UNCALIBRATED}
    assert np.isfinite(found["confidence"]).all()


def rows(**words: tuple[float, str]) -> pd.DataFrame:
    table = [
        (case, dice, 0.5 + place / 10, 0.0, said)
        for place, (case, (dice, said)) in enumerate(words.items())
    ]
    columns = ["case", "predicted_dice", "confidence", "novelty", "words"]
    return pd.DataFrame(table, columns=columns)


def test_what_needs_a_look_comes_first() -> None:
    given = rows(
        good=(0.9, outlook.AS_GOOD),
        bad=(0.3, outlook.LOOK),
        odd=(0.8, outlook.UNLIKE),
        odder=(0.7, outlook.UNLIKE),
        fair=(0.6, outlook.BELOW),
    )
    found = arrivals.to_look_at(given)
    assert list(found["case"]) == ["odder", "odd", "bad", "fair", "good"]
    assert list(found) == list(given)
    # Nothing predicted: the least confident first, as in the order of labelling.
    nothing = rows(**dict.fromkeys("cab", (math.nan, outlook.UNCALIBRATED)))
    assert list(arrivals.to_look_at(nothing)["case"]) == ["c", "a", "b"]


def test_an_empty_field_of_a_file_names_nobody() -> None:
    assert arrivals.names({"leans_on": math.nan}, "leans_on") == []
    assert arrivals.names({"leans_on": "a,b"}, "leans_on") == ["a", "b"]
