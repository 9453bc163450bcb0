"""Signatures against hand-made cells, and what must not change them."""

import math

import numpy as np
import pandas as pd
import pytest
from unit.similarity.simulated_errors import SOUND, Defect, simulate_errors

from casesim.inference.errors import Errors
from casesim.similarity.signatures import (
    FOREGROUND,
    SMALLEST_SPREAD,
    from_column,
    from_row,
    measures,
    positions,
    signatures,
    standardised,
)

NAN = math.nan


def one_cell(confusion: list[list[int]], fp: list[int], fn: list[int]) -> Errors:
    return Errors(
        ["base"],
        ["a"],
        ["edema", "core"],
        np.array(confusion, float)[None, None],
        np.array(fp, float)[None, None],
        np.array(fn, float)[None, None],
    )


# Rows: reference background, edema, core. 60 voxels of edema, 20 of core.
CELL = one_cell(
    [[900, 20, 0], [10, 40, 10], [0, 5, 15]], [10, 5, 0, 5, 0], [9, 0, 1, 0, 0]
)


def test_measures_by_hand() -> None:
    found = {key: values[0, 0] for key, values in measures(CELL, {"TC": [2]}).items()}
    # Foreground: 90 predicted, 80 referred, 70 of both.
    assert found["precision", FOREGROUND] == pytest.approx(70 / 90)
    assert found["recall", FOREGROUND] == pytest.approx(70 / 80)
    assert found["dice", FOREGROUND] == pytest.approx(140 / 170)
    assert found["volume", FOREGROUND] == pytest.approx(math.log(90.9 / 80.9))
    # Core: 25 predicted, 20 referred, 15 of both.
    assert found["precision", "TC"] == pytest.approx(15 / 25)
    assert found["recall", "TC"] == pytest.approx(15 / 20)
    assert found["volume", "TC"] == pytest.approx(math.log(25.25 / 20.25))
    # Of 30 voxels in error 5 lie beyond 4 mm.
    assert found["far", FOREGROUND] == pytest.approx(5 / 30)
    # Edema: 65 predicted. As is: 80/125 and 30/45; exchanged: 20/85 and 10/85.
    as_is, exchanged = (80 / 125 + 30 / 45) / 2, (20 / 85 + 10 / 85) / 2
    assert found["exchange", "edema|core"] == pytest.approx(exchanged - as_is)


def test_a_region_called_foreground_does_not_take_its_place() -> None:
    named, alone = measures(CELL, {FOREGROUND: [2]}), measures(CELL, {})
    assert named["volume", FOREGROUND] == alone["volume", FOREGROUND]


def test_empty_masks_are_undefined_or_finite() -> None:
    nothing = one_cell([[9, 0, 0], [4, 0, 0], [0, 0, 0]], [0] * 5, [4, 0, 0, 0, 0])
    found = {
        key: values[0, 0] for key, values in measures(nothing, {"TC": [2]}).items()
    }
    assert found["volume", FOREGROUND] == pytest.approx(math.log(0.01 / 1.01))
    assert found["recall", FOREGROUND] == 0
    assert math.isnan(found["precision", FOREGROUND])
    assert math.isnan(found["volume", "TC"])
    assert math.isnan(found["dice", "TC"])


def test_rows_and_columns_by_hand() -> None:
    values = np.array([[9.0, 1.0, 5.0], [2.0, 9.0, 6.0], [4.0, 2.0, 9.0]])
    own = np.eye(3, dtype=bool)
    # Usual in the columns, the own cell left out: 3, 1.5, 5.5.
    expected = [np.median([-0.5, -0.5]), np.median([-1, 0.5]), np.median([1, 0.5])]
    np.testing.assert_allclose(from_row(values, own), expected)
    np.testing.assert_allclose(from_column(values, own), [3, 1.5, 5.5])
    values[:, 1] = NAN
    values[0, 2] = NAN
    np.testing.assert_allclose(from_row(values, own), [NAN, -0.5, 1.0])
    np.testing.assert_allclose(from_column(values, own), [3, NAN, 6])


def test_a_spread_that_says_nothing_is_not_divided_by() -> None:
    even = np.array([0.5, 0.5, 0.501, 0.499, 0.6, NAN])
    effect, z = standardised(even, "dice")
    assert effect[4] == pytest.approx(0.1)
    assert z[4] == pytest.approx(0.1 / SMALLEST_SPREAD["dice"])
    assert math.isnan(z[5])
    wide = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(
        standardised(wide, "dice")[1], (wide - 0.5) / (1.4826 * 0.2)
    )


def test_the_own_cell_changes_nothing() -> None:
    errors, base = simulate_errors([SOUND] * 8 + [Defect(grown=0.5)])
    before = signatures(errors, base, {}).table
    errors.confusion[range(9), range(9)] = 7.0
    pd.testing.assert_frame_equal(signatures(errors, base, {}).table, before)


def test_the_order_of_cases_changes_nothing() -> None:
    errors, base = simulate_errors(
        [SOUND] * 10 + [Defect(grown=0.5), Defect(apart=0.8)]
    )
    order = np.random.default_rng(1).permutation(12)
    cases = [errors.cases[i] for i in order]
    models = [f"finetuned/{errors.cases[i]}" for i in order[::-1]]
    turned = signatures(errors.select(models, cases), base.select(["base"], cases), {})
    key = ["case", "side", "measure", "region"]
    first, second = (
        found.table.sort_values(key, ignore_index=True)
        for found in (signatures(errors, base, {}), turned)
    )
    pd.testing.assert_frame_equal(first, second)


def test_a_map_that_is_too_large_shows_on_both_sides() -> None:
    errors, base = simulate_errors([SOUND] * 15 + [Defect(grown=0.5)])
    found = signatures(errors, base, {"TC": [2, 3]})
    for side, sign in (("row", 1), ("column", -1), ("base", -1)):
        effect = found.wide(side)["volume"].loc["case_015"]
        assert effect[FOREGROUND] == pytest.approx(sign * 0.5, abs=0.15)
        assert effect["TC"] == pytest.approx(sign * 0.5, abs=0.15)


def test_positions_are_those_of_the_confusion_matrix() -> None:
    labels = {"edema": 1, "core": 4, "rim": 2}
    found = positions({"TC": (4, 2), "ET": (2,)}, labels)
    assert found == {"TC": [2, 3], "ET": [3]}


def test_without_rows_the_base_model_is_the_only_side() -> None:
    _, base = simulate_errors([SOUND] * 15 + [Defect(grown=0.6)])
    found = signatures(None, base, {})
    assert set(found.table["side"]) == {"base"}
    effect = found.wide("base")["volume"].loc["case_015", FOREGROUND]
    assert effect == pytest.approx(-0.6, abs=0.2)
