"""What is learnt from calibration cases: skill where there is some, none where not."""

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import quality, regressor
from casesim.adaptive.plan import MIN_CALIBRATION
from casesim.adaptive.regressor import FOLDS, fit, out_of_fold, predict

from .synthetic import BASE_DICE, cells

TREES = 60


@pytest.fixture(scope="module")
def learnt() -> tuple[regressor.Fit, pd.DataFrame]:
    return fit(cells(40), BASE_DICE, 0.9, trees=TREES)


def judge(learnt: regressor.Fit, seed: int = 7) -> tuple[dict, pd.DataFrame]:
    """Quality of the predictions of the base's Dice on 40 other cases."""
    new = cells(40, seed=seed, prefix="new")
    found = predict(learnt, new).assign(dice=new["dice"])
    base = found[found["model"] == "base"].set_index("case")
    return (
        quality.of_predictions(
            base["predicted_dice"],
            base["dice"],
            learnt.row_means["base"],
            base["low"],
            base["high"],
        ),
        found,
    )


def test_new_cases_are_predicted_without_bias(learnt: tuple) -> None:
    found, _ = judge(learnt[0])
    assert found["mae_ratio"] < 0.6
    assert abs(found["bias"]) < 0.03
    assert found["rank_correlation"] > 0.75
    assert found["coverage"] >= 0.8


def test_models_of_a_case_are_told_apart(learnt: tuple) -> None:
    _, cells_of_new = judge(learnt[0])
    scores = ("predicted_dice",)
    within = quality.within_columns(cells_of_new, scores, removed=())
    found = quality.mean_with_interval(within["predicted_dice"])
    assert found["ci_low"] > 0.2


def test_permuted_labels_of_calibration_cases_give_no_skill() -> None:
    table = cells(40)
    generator = np.random.default_rng(3)
    cases = sorted(set(table["case"]))
    other = dict(zip(cases, generator.permutation(cases), strict=True))
    dice = table.set_index(["case", "model"])["dice"]
    keys = list(zip(table["case"].map(other), table["model"], strict=True))
    permuted = table.assign(dice=dice.loc[keys].to_numpy())
    learnt, out = fit(permuted, BASE_DICE, 0.9, trees=TREES)
    found, _ = judge(learnt)
    assert found["mae_ratio"] > 0.85
    assert abs(quality.spearman(out["predicted_dice"], out["dice"])) < 0.3


def test_out_of_fold_predictions_know_nothing_of_their_case(learnt: tuple) -> None:
    """Whatever one case's Dice is, its own prediction stays the same."""
    table = cells(40)
    changed = table.assign(
        dice=table["dice"].where(table["case"] != "case007", 1 - table["dice"])
    )
    _, before = learnt
    _, after = fit(changed, BASE_DICE, 0.9, trees=TREES)
    own = before["case"] == "case007"
    for column in ("predicted_dice", "spread"):
        np.testing.assert_array_equal(before[column][own], after[column][own])
    assert not before["predicted_dice"].equals(after["predicted_dice"])
    assert before.groupby("case")["fold"].nunique().eq(1).all()


def test_splitting_cells_instead_of_cases_would_look_better_than_it_is() -> None:
    """Where confidence says nothing, only a leak can predict a case's Dice."""
    table = cells(30)
    noise = np.random.default_rng(5).uniform(size=len(table))
    blind = table.assign(expected_dice=noise)
    # Something that only identifies the case.
    blind["volume_ml"] = blind["case"].str[-3:].astype(float)
    by_case = out_of_fold(blind, {}, blind["case"], 0, TREES)
    cell_of = pd.Series(np.arange(len(blind)), blind.index)
    # The base's column is asked for: cells of one group keep their case's base.
    by_cell = out_of_fold(blind, {}, cell_of, 0, TREES)
    error = [(f["predicted_dice"] - f["dice"]).abs().mean() for f in (by_case, by_cell)]
    assert error[1] < 0.75 * error[0]


def test_a_model_without_a_record_is_not_taken_for_a_common_one() -> None:
    """Two of eight models fail everywhere and know it: their row means say so, but not
    when they are unknown."""
    table = cells(20, n_models=8)
    bad = table["model"].isin(["finetuned/t3", "finetuned/t6"])
    for column in ("dice", "expected_dice"):
        table[column] = table[column].where(~bad, table[column] / 4)
    found = out_of_fold(table, BASE_DICE, table["model"], 0, TREES)
    error = found["predicted_dice"] - found["dice"]
    assert abs(error[bad].mean()) < 0.06


def test_the_order_of_rows_and_the_number_of_threads_do_not_matter(
    learnt: tuple,
) -> None:
    mixed = cells(40).sample(frac=1, random_state=2)
    _, out = fit(mixed, BASE_DICE, 0.9, trees=TREES, threads=2)
    pd.testing.assert_frame_equal(out, learnt[1])


def test_undefined_dice_is_left_out_and_counted() -> None:
    table = cells(30)
    gone = table["case"] == "case003"
    table.loc[gone, "dice"] = np.nan
    learnt, out = fit(table, BASE_DICE, 0.9, trees=10)
    assert (learnt.n_cases, learnt.n_undefined) == (29, 6)
    assert out["predicted_dice"].notna().all()


def test_an_unknown_model_is_predicted_without_a_record(learnt: tuple) -> None:
    new = cells(2, seed=8, prefix="new").replace({"finetuned/t5": "finetuned/t9"})
    assert predict(learnt[0], new)["predicted_dice"].between(0, 1).all()


def test_few_calibration_cases_teach_nothing_and_say_so() -> None:
    table = cells(MIN_CALIBRATION - 1)
    learnt, out = fit(table, BASE_DICE, 0.9)
    assert not learnt.calibrated
    assert learnt.n_cases == MIN_CALIBRATION - 1
    found = predict(learnt, table)
    for rows in (found, out):
        assert rows[["predicted_dice", "low", "high"]].isna().all(axis=None)
    pd.testing.assert_series_equal(
        found["confidence"], table["expected_dice"], check_names=False
    )


@pytest.mark.parametrize("patients", [1, 2, FOLDS - 1])
def test_many_scans_of_few_patients_teach_nothing_either(patients: int) -> None:
    table = cells(MIN_CALIBRATION + 4)
    number = table["case"].str[-3:].astype(int) % patients
    known = dict(zip(table["case"], "p" + number.astype(str), strict=True))
    learnt, out = fit(table, BASE_DICE, 0.9, trees=5, patients=known)
    assert not learnt.calibrated
    assert (learnt.n_cases, learnt.n_patients) == (MIN_CALIBRATION + 4, patients)
    assert out["predicted_dice"].isna().all()


def test_intervals_of_a_new_level_nest(learnt: tuple) -> None:
    wide, _ = learnt
    narrow, _ = fit(cells(40), BASE_DICE, 0.5, trees=TREES)
    new = cells(10, seed=9, prefix="new")
    inner, outer = predict(narrow, new), predict(wide, new)
    assert (outer["low"] <= inner["low"]).all()
    assert (outer["high"] >= inner["high"]).all()
    # With 20 cases nothing can be promised beyond 20 of 21.
    endless, _ = fit(cells(20), BASE_DICE, 0.99, trees=10)
    limits = predict(endless, new)
    assert (limits["low"] == 0).all()
    assert (limits["high"] == 1).all()


def test_the_same_patient_is_never_on_both_sides() -> None:
    """Every case twice, with its Dice: known at once, unless it is known as one."""
    once = cells(24)
    generator = np.random.default_rng(5)
    noise = dict(
        zip(sorted(set(once["case"])), generator.normal(0, 0.1, 24), strict=True)
    )
    once = once.assign(dice=once["dice"] + once["case"].map(noise))
    twice = pd.concat([once, once.assign(case=once["case"] + "_2")], ignore_index=True)
    patients = {case: case.removesuffix("_2") for case in set(twice["case"])}
    leaky, honest = (
        fit(twice, BASE_DICE, 0.9, trees=20, patients=known)
        for known in (None, patients)
    )
    errors = [
        float((found["predicted_dice"] - found["dice"]).abs().mean())
        for _, found in (leaky, honest)
    ]
    assert errors[0] < 0.8 * errors[1]
    assert leaky[0].quantiles["base"] < honest[0].quantiles["base"]
    folds = honest[1].groupby(honest[1]["case"].map(patients))["fold"].nunique()
    assert (folds == 1).all()
