"""Everything that held-out cases say, from tables as the workflow has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import fitting, judging, outlook, selection, table
from casesim.report import adaptive

from .synthetic import BASE_DICE, cells

TRAIN = [f"t{i}" for i in range(1, 6)]
REMOVED = ["t5"]


@pytest.fixture(scope="module")
def fits() -> dict:
    every = cells(30, region="mean")
    base = pd.DataFrame(
        [(case, "mean", dice) for case, dice in BASE_DICE.items()],
        columns=["case", "region", "dice"],
    )
    keys = ["model", "case", "region", "dice"]
    features = every.drop(columns="dice")
    return fitting.fit_all(features, every[keys], base, 0.9, 0, {}, trees=40).fits


def held_out(fits: dict, seed: int = 5) -> judging.Cells:
    """Twenty held-out cases; the ensemble is a little better than its best model."""
    judges = cells(20, seed=seed, prefix="h", region="mean")
    predicted = fitting.predict_all(fits, judges.drop(columns="dice"))
    selections = {
        str(case): selection.select(rows, "mean", ["a"], 0.02)
        for case, rows in predicted.groupby("case")
    }
    keys = ["model", "case", "region", "dice"]
    generator = np.random.default_rng(seed)
    best = judges.groupby("case")["dice"].max().rename_axis("case")
    parts = []
    for name, level in {
        "adaptive": 0.0,
        "uniform_all": -0.08,
        "uniform_without_worst": -0.05,
        "random_1": -0.1,
        "random_2": -0.09,
        **{f"continued_full/seed{s}": -0.04 for s in (0, 1)},
        **{f"continued_kept/seed{s}": -0.03 for s in (0, 1)},
    }.items():
        dice = best + level + generator.normal(0, 0.01, len(best))
        parts.append(dice.reset_index().assign(model=name, region="mean"))
    image = [[1.0, 2.0]]
    return judging.Cells(
        region="mean",
        predicted=predicted,
        selections=selections,
        scores=judges[keys],
        method_scores=pd.concat(parts, ignore_index=True)[keys],
        full={0: judges[judges["model"] == "base"][keys]},
        row_means=fits["mean"].row_means,
        outlook=outlook.Outlook(0.05, 2.0, (0.5, 0.6, 0.7)),
        images={**dict.fromkeys(TRAIN, image), **dict.fromkeys(selections, image)},
        train=TRAIN,
        removed=REMOVED,
        base_seed=0,
    )


def test_every_method_has_its_dice_on_every_case(fits: dict) -> None:
    given = held_out(fits)
    dice = judging.dice_of_methods(given)
    assert set(dice["method"]) == {
        *("adaptive", "uniform_all", "uniform_without_worst", "random_1", "random_2"),
        *("continued_full", "continued_kept", "oracle", "base", "pick"),
        *("best_row_mean", "confidence_alone", "nearest_by_image"),
    }
    counts = dice.groupby(["method", "seed"])["case"].nunique()
    assert (counts == 20).all()
    assert set(dice[dice["method"] == "continued_full"]["seed"]) == {0, 1}
    own = given.scores.set_index(["model", "case"])["dice"]
    picked = dice[dice["method"] == "pick"].set_index("case")["dice"]
    for case, ranked in given.selections.items():
        assert picked[case] == own[ranked["model"][0], case]
    nearest = dice[dice["method"] == "nearest_by_image"].set_index("case")["dice"]
    assert nearest["h003"] == own["finetuned/t1", "h003"]


def test_trainings_of_the_full_pool_with_other_seeds_are_a_method(fits: dict) -> None:
    given = held_out(fits)
    other = given.full[0].assign(dice=0.5, model="retrained/full-seed1")
    foreign = other.assign(case=[f"p{i}" for i in range(len(other))])
    given = replace(given, full={0: given.full[0], 1: pd.concat([other, foreign])})
    dice = judging.dice_of_methods(given)
    full = dice[dice["method"] == "full_retrained"]
    assert set(full["seed"]) == {0, 1}
    assert set(full["case"]) == set(given.selections)


def test_what_is_judged(fits: dict) -> None:
    found = judging.judge(held_out(fits))
    assert found["calibrated"]
    assert found["base"]["mae_ratio"] < 0.7
    assert found["base"]["n"] == 20
    assert found["raw_confidence"]["bias"] > found["base"]["bias"]
    assert found["gap_closed"] == pytest.approx(1, abs=0.1)
    within = found["within_columns"]
    assert within["predicted_dice"]["mean"] > within["row_mean"]["mean"]
    assert set(found["verdicts"]) == set(judging.HEADLINES)
    assert found["contrasts"]["adaptive"]["continued_full"]["mean"] > 0
    sentences = judging.sentences({**found, "level": 0.9})
    assert sentences[0].startswith("Predicted Dice of the base model: mean error 0.")
    assert any(
        text.startswith("Against continued_kept: adaptive") for text in sentences
    )


def test_labels_of_held_out_cases_change_no_selection(fits: dict) -> None:
    """Selections are made of features alone: byte for byte the same."""

    def written(dice: float | None) -> str:
        judges = cells(5, seed=5, prefix="h", region="mean")
        if dice is not None:
            judges["dice"] = dice
        predicted = fitting.predict_all(fits, judges)
        return "".join(
            selection.select(rows, "mean", ["a"], 0.02).to_csv(sep="\t")
            for _, rows in predicted.groupby("case")
        )

    assert written(None) == written(0.0) == written(1.0)


def test_without_calibration_the_methods_are_still_compared(fits: dict) -> None:
    given = held_out(fits)
    names = ["predicted_dice", "spread", "low", "high"]
    predicted = given.predicted.assign(**dict.fromkeys(names, np.nan))
    given = replace(
        given,
        predicted=predicted,
        selections={
            str(case): selection.select(rows, "mean", ["a"], 0.02)
            for case, rows in predicted.groupby("case")
        },
        outlook=outlook.Outlook(np.nan, np.inf, ()),
    )
    found = judging.judge(given)
    assert not found["calibrated"]
    assert found["base"]["n"] == 0
    assert found["adaptive"]["n"] == 0
    assert found["raw_confidence"]["n"] == 20
    assert len(found["contrasts"]["adaptive"]) > 5
    text = judging.sentences({**found, "level": 0.9})[0]
    assert text.startswith("Too few calibration cases")
    said = judging.headlines({**found, "level": 0.9})
    assert said[0] == found["verdicts"]["continued_kept"]
    assert json.loads(json.dumps(table._finite(found)))["base"]["mae"] is None


def test_a_single_held_out_case_is_too_few_for_all_but_the_means(
    fits: dict, tmp_path: Path
) -> None:
    given = held_out(fits)
    (case, ranked), *_ = given.selections.items()
    one = replace(
        given,
        predicted=given.predicted[given.predicted["case"] == case],
        selections={case: ranked},
        scores=given.scores[given.scores["case"] == case],
        method_scores=given.method_scores[given.method_scores["case"] == case],
        full={0: given.full[0][given.full[0]["case"] == case]},
    )
    found = judging.judge(one) | {"level": 0.9}
    assert found["contrasts"]["adaptive"]["base"]["verdict"] == "cannot tell"
    assert "too few held-out cases" in judging.headlines(found)[0]
    methods = judging.methods(one)
    figure = adaptive.draw(
        judging.points(one), methods, found, tmp_path / "v.png", tmp_path / "v.svg"
    )
    left, right = figure.axes
    assert "too few held-out cases to tell" in left.get_title(loc="left")
    low, high = right.get_xlim()
    near = methods["change"].between(low, high)
    assert near[methods["method"].isin(["adaptive", "oracle", "base"])].all()


def test_a_patient_counts_once(fits: dict) -> None:
    given = held_out(fits)
    patients = {case: f"h{int(case[1:]) // 2 * 2:03d}" for case in given.selections}
    found = judging.judge(replace(given, patients=patients))
    assert found["held_out_cases"] == 20
    assert found["contrasts"]["adaptive"]["base"]["n"] == 10
    assert found["within_columns"]["row_mean"]["n"] == 10
    table = judging.methods(replace(given, patients=patients))
    assert set(table["n"]) == {10}
    # Each case is still there.
    assert judging.dice_of_methods(given)["case"].nunique() == 20


def test_what_comes_closest_is_told_beside_the_control_that_decides(fits: dict) -> None:
    given = held_out(fits)
    of_kept = given.method_scores["model"].str.startswith("continued_kept")
    dice = given.method_scores["dice"]

    def of(kept: float) -> judging.Cells:
        moved = given.method_scores.assign(dice=dice.where(~of_kept, dice + kept))
        return replace(given, method_scores=moved)

    best = judging.judge(of(0.2)) | {"level": 0.9}
    assert len(judging.headlines(best)) == 2
    astray = judging.judge(of(-0.3)) | {"level": 0.9}
    means = judging.methods(of(-0.3)).set_index("method")["mean"]
    ours = ["oracle", "adaptive", "pick", "random_1", "random_2"]
    strongest = means.drop(ours).idxmax()
    for found in (astray, json.loads(json.dumps(table._finite(astray)))):
        _, decisive, closest = judging.headlines(found)
        assert decisive.startswith("Against continued_kept: adaptive helps")
        assert closest.startswith(f"The best of the rest. Against {strongest}: ")


def test_methods_in_every_region(fits: dict) -> None:
    given = held_out(fits)
    both = [
        pd.concat([frame, frame.assign(region="WT", dice=frame["dice"] / 2)])
        for frame in (given.scores, given.method_scores)
    ]
    found = judging.methods(replace(given, scores=both[0], method_scores=both[1]))
    assert list(dict.fromkeys(found["region"])) == ["mean", "WT"]
    means = found.set_index(["region", "method"])["mean"]
    assert means["WT", "adaptive"] == pytest.approx(means["mean", "adaptive"] / 2)


def test_a_label_that_no_held_out_case_has(fits: dict) -> None:
    given = held_out(fits)
    both = [
        pd.concat([frame, frame.assign(region="core", dice=np.nan)])
        for frame in (given.scores, given.method_scores)
    ]
    found = judging.methods(replace(given, scores=both[0], method_scores=both[1]))
    core = found[found["region"] == "core"]
    assert set(core["n"]) == {0}
    assert core[["mean", "change", "gap_closed"]].isna().all(axis=None)
