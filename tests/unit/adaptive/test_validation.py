"""Methods compared on held-out cases: by hand, and verdicts on known truths."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from casesim.adaptive import validation

LUCK = {0: 0.0, 1: 0.1, 2: -0.05}


def rows(method: str, *dice: float, seed: int = 0) -> pd.DataFrame:
    cases = [f"h{i}" for i in range(len(dice))]
    return pd.DataFrame(
        {"method": method, "seed": seed, "case": cases, "region": "mean", "dice": dice}
    )


def test_changes_are_paired_by_case() -> None:
    table = pd.concat(
        [
            rows("adaptive", 0.5, 0.6, math.nan),
            rows("continued", 0.4, 0.4, 0.4),
            rows("continued", 0.6, math.nan, 0.4, seed=1),
        ]
    )
    found, cases, n_target, n_reference = validation.changes(
        table, "adaptive", "continued"
    )
    np.testing.assert_allclose(found, [[0.1, 0.2, np.nan], [-0.1, np.nan, np.nan]])
    assert cases == ["h0", "h1", "h2"]
    assert (n_target, n_reference) == (1, 2)


def test_training_noise_is_the_spread_between_seeds() -> None:
    table = pd.concat(
        [
            rows("one", 0.5, 0.7),
            rows("one", 0.6, 0.8, seed=1),
            rows("two", 0.5, 0.5),
            rows("two", 0.5, 0.5, seed=1),
            rows("once", 0.1, 0.9),
        ]
    )
    noise = validation.training_noise(table)
    assert noise is not None
    # Means 0.6 and 0.7, and twice 0.5: a sum of squares of 0.005 with two degrees.
    assert noise.sd == pytest.approx(math.sqrt(0.005 / 2))
    assert noise.df == 2
    assert validation.training_noise(rows("once", 0.1, 0.9)) is None


def test_what_all_methods_of_a_base_share_is_no_noise_between_them() -> None:
    table = pd.concat(
        [
            *(rows("base", 0.5 + lot, 0.7 + lot, seed=s) for s, lot in LUCK.items()),
            *(rows("adaptive", 0.6 + lot, seed=s) for s, lot in LUCK.items()),
            *(rows("random_1", 0.9 * s, seed=s) for s in LUCK),
            *(rows("oracle", 0.9 * s, seed=s) for s in LUCK),
        ]
    )
    noise = validation.training_noise(table)
    assert noise is not None
    assert noise.sd == pytest.approx(0, abs=1e-12)
    # Two methods, three seeds.
    assert noise.df == 2
    moved = pd.concat([table, rows("continued_full", 0.4)])
    table.loc[(table["method"] == "adaptive") & (table["seed"] == 1), "dice"] += 0.04
    table.loc[(table["method"] == "adaptive") & (table["seed"] == 2), "dice"] -= 0.04
    noise = validation.training_noise(table)
    assert noise is not None
    # Half of each change is the seed's, half the method's: 4 x 0.02² with 2 degrees.
    assert noise.sd == pytest.approx(math.sqrt(4 * 0.02**2 / 2))
    # What was trained once adds nothing.
    noise = validation.training_noise(moved)
    assert noise is not None
    assert (round(noise.sd, 9), noise.df) == (0, 2)


def test_the_interval_knows_how_often_each_side_was_trained() -> None:
    generator = np.random.default_rng(0)
    dice = generator.uniform(0.5, 0.9, 12)
    table = pd.concat(
        [
            rows("adaptive", *(dice + generator.normal(0.03, 0.01, 12))),
            *(
                rows("continued", *(dice + 0.004 * seed), seed=seed)
                for seed in range(3)
            ),
        ]
    )
    found = validation.contrast(table, "adaptive", "continued")
    sd = np.std([0, 0.004, 0.008], ddof=1)
    assert found["training_sd"] == pytest.approx(sd)
    assert found["seeds"] == [1, 3]
    changes, *_ = validation.changes(table, "adaptive", "continued")
    of_training = sd**2 * (1 + 1 / 3)
    of_cases = changes.mean(0).var(ddof=1) / 12
    df = (of_training + of_cases) ** 2 / (of_training**2 / 2 + of_cases**2 / 11)
    half = stats.t.ppf(0.975, df) * math.sqrt(of_training + of_cases)
    assert found["mean"] - found["interval_low"] == pytest.approx(half)


def experiment(effect: float, seed: int, n: int = 40) -> pd.DataFrame:
    """A target that is better by `effect`, three trainings of what it has to beat."""
    generator = np.random.default_rng(seed)
    of_case = generator.normal(0.6, 0.15, n)

    def trained(method: str, level: float, number: int = 0) -> pd.DataFrame:
        of_training = generator.normal(0, 0.006)
        noise = generator.normal(0, 0.03, n)
        return rows(method, *(of_case + level + of_training + noise), seed=number)

    return pd.concat(
        [
            trained("base", 0),
            trained("adaptive", effect),
            *(trained("continued_full", 0, number) for number in range(3)),
            *(trained(f"random_{r}", -0.02) for r in range(1, 6)),
            trained("oracle", 0.08),
        ]
    )


def test_verdicts_where_the_truth_is_known() -> None:

    def word(effect: float, seed: int) -> str:
        table = experiment(effect, seed)
        found = validation.contrast(table, "adaptive", "continued_full", resamples=10)
        return str(found["verdict"])

    words = {e: [word(e, seed) for seed in range(25)] for e in (-0.08, 0.0, 0.08)}
    assert words[0.08].count("helps") >= 20
    assert words[-0.08].count("harms") >= 20
    assert words[0.0].count("helps") + words[0.0].count("harms") <= 4


def test_one_training_of_everything_cannot_tell() -> None:
    table = experiment(0.08, 0).query("seed == 0")
    found = validation.contrast(table, "adaptive", "continued_full")
    assert found["verdict"] == "cannot tell"
    assert math.isnan(found["interval_low"])
    assert found["ci_low"] > 0


def test_table_of_methods() -> None:
    table = pd.concat(
        [
            rows("base", 0.5, 0.6),
            rows("oracle", 0.7, 0.8),
            rows("adaptive", 0.6, 0.7),
            rows("continued_full", 0.5, 0.7),
            rows("continued_full", 0.5, 0.5, seed=1),
        ]
    )
    found = validation.methods(table).set_index("method")
    assert list(found.index) == ["oracle", "adaptive", "base", "continued_full"]
    assert found["mean"].to_dict() == pytest.approx(
        {"oracle": 0.75, "adaptive": 0.65, "base": 0.55, "continued_full": 0.55}
    )
    assert found.loc["adaptive", "gap_closed"] == pytest.approx(0.5)
    assert found.loc["oracle", "gap_closed"] == 1
    assert found.loc["continued_full", "seeds"] == 2
    assert [found[name]["base"] for name in ("change", "ci_low", "ci_high")] == [0] * 3


def test_the_way_to_the_oracle_is_that_on_the_cases_of_the_method() -> None:
    """A fine-tune for the first case alone, half way to the oracle there."""
    table = pd.concat(
        [
            rows("base", 0.5, 0.6, math.nan),
            rows("oracle", 0.7, 0.7, 0.9),
            rows("finetuned_for_case", 0.6),
            rows("pick", 0.6, 0.65, 0.1),
        ]
    )
    found = validation.methods(table).set_index("method")["gap_closed"]
    assert found["finetuned_for_case"] == pytest.approx(0.5)
    assert found["pick"] == pytest.approx(0.075 / 0.15)


def test_scans_of_one_patient_are_no_two_cases() -> None:
    table = pd.concat(
        [
            rows("base", 0.5, 0.6, 0.7, math.nan),
            rows("adaptive", 0.6, 0.8, 0.7, 0.9),
            rows("adaptive", 0.8, 0.8, 0.7, 0.9, seed=1),
        ]
    )
    patients = {"h0": "h0", "h1": "h0"}
    found = validation.by_patient(table, patients)
    assert list(found) == list(validation.COLUMNS)
    changes, cases, *_ = validation.changes(found, "adaptive", "base")
    np.testing.assert_allclose(changes, [[0.15, 0, np.nan], [0.25, 0, np.nan]])
    assert cases == ["h0", "h2", "h3"]
    assert validation.by_patient(table) is table
    # Every case twice: as many of it as there were, not a narrower interval.
    once = experiment(0.03, 0, n=12)
    twice = pd.concat([once, once.assign(case=once["case"] + "_2")])
    known = {case: case.removesuffix("_2") for case in twice["case"]}
    same, told, naive = (
        validation.contrast(given, "adaptive", "continued_full", resamples=200)
        for given in (once, validation.by_patient(twice, known), twice)
    )
    assert told["n"] == 12
    for name in ("mean", "interval_low", "ci_low", "wilcoxon_p", "training_sd"):
        assert told[name] == pytest.approx(same[name])
    assert naive["ci_low"] > told["ci_low"]
    assert naive["ci_high"] < told["ci_high"]


def sentences(*given: pd.DataFrame) -> list[str]:
    return [
        validation.contrast(table, "adaptive", reference, resamples=10)["sentence"]
        for table in given
        for reference in ("base", "continued_full")
    ]


def test_verdicts_speak_of_ensembles_where_these_are_drawn() -> None:
    good = experiment(0.08, 0)
    is_random = good["method"].str.startswith("random_")
    as_good = good.assign(dice=good["dice"].where(~is_random, good["dice"] + 0.1))
    once = good.query("seed == 0")
    for table, said in [
        (good, "better than 5 of 5 random ensembles"),
        (as_good, "but the random ensembles are too few or too close: better than "),
        (good[~is_random], "but there is no random ensemble beside it"),
        (once, "nothing was trained with more than one seed (adaptive.seeds)"),
    ]:
        for sentence in sentences(table):
            assert said in sentence
            assert "arm" not in sentence
            assert "removal" not in sentence
    # A random ensemble has the others beside it.
    found = validation.contrast(good, "adaptive", "random_1", resamples=10)
    assert "better than 4 of 4 random ensembles" in found["sentence"]
    own = good.query("method == 'adaptive'")["dice"]
    randoms = [rows(f"random_{r}", *own) for r in range(1, 20)]
    many = pd.concat([good[~is_random], *randoms])
    for sentence in sentences(many):
        assert "but random ensembles do as well: better than 0 of 19" in sentence


def test_noise_from_the_changes_themselves() -> None:
    changes = np.array([[0.1, 0.3], [0.2, 0.6], [0.3, np.nan]])
    # Means of seeds 0.2, 0.4, 0.3; of cases 0.2, 0.45.
    of_seeds, of_cases = 0.01 / 3, 0.25**2 / 2 / 2
    variance = of_seeds + of_cases
    df = variance**2 / (of_seeds**2 / 2 + of_cases**2 / 1)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    low, high = validation.paired_interval(changes)
    assert (low, high) == pytest.approx((0.325 - half, 0.325 + half))
    assert np.isnan(validation.paired_interval(changes[:1])).all()
    # Of methods that were not trained with the same seeds there is none.
    table = pd.concat(
        [rows("adaptive", 0.5, 0.6), *(rows("x", 0.4, 0.5, seed=s) for s in (0, 1))]
    )
    assert math.isnan(validation.contrast(table, "adaptive", "x")["paired_low"])


def test_contrasts_of_each_target_with_each_baseline() -> None:
    table = experiment(0.0, 1)
    found = validation.contrasts(table)
    assert list(found) == ["adaptive"]
    assert set(found["adaptive"]) == set(table["method"]) - {"adaptive"}
    assert found["adaptive"]["base"]["sentence"].startswith("Against base: adaptive")
