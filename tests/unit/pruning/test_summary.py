"""The summary of small and of simulated comparisons."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from unit.pruning.comparisons import BEFORE, COHORT, NAN, compare, scores
from unit.pruning.experiments import ARM, CASE, DESIGNS, RESIDUAL, TRAINING, simulate

from casesim.errors import UserError
from casesim.pruning.arms import retrained_models
from casesim.pruning.comparison import comparison
from casesim.pruning.summary import by_patient, summary, write_summary


def test_summary_keeps_held_out_kept_and_removed_cases_apart() -> None:
    regions = summary(compare())["arms"]["worst_cluster"]["regions"]
    groups = regions["mean"]
    assert {name: group["n"] for name, group in groups.items()} == {
        "held_out": 2,
        "kept": 2,
        "removed": 1,
    }
    assert groups["held_out"]["mean"] == pytest.approx((0.15 + 0.0) / 2)
    assert groups["held_out"]["n_undefined"] == 1
    assert groups["kept"]["mean"] == pytest.approx((0.05 + 0.025) / 2)
    assert groups["removed"]["mean"] == pytest.approx(-0.1)


def test_a_held_out_patient_counts_once() -> None:
    table = compare()
    held_out = table["case"].isin(["h1", "h2"])
    again = table[held_out].assign(case=table["case"] + "_2")
    # One scan is better by 0.1, and the other worse.
    apart = [
        scans.assign(delta=scans["delta"] + shift)
        for scans, shift in ((table[held_out], 0.1), (again, -0.1))
    ]
    twice = pd.concat([table[~held_out], *apart], ignore_index=True)
    patients = {f"{case}{end}": case for case in ("h1", "h2") for end in ("", "_2")}
    told = by_patient(twice, patients)
    assert sorted(told["case"].unique()) == ["h1", "h2", "p1", "p2", "p3"]
    once, found = summary(table), summary(twice, patients=patients)
    assert found["design"]["held_out_cases"] == 2
    groups = [
        content["arms"]["worst_cluster"]["regions"]["mean"] for content in (once, found)
    ]
    for name in ("held_out", "kept", "removed"):
        same, own = (dict(group[name]) for group in groups)
        assert own.pop("mean_by_seed", []) == pytest.approx(
            same.pop("mean_by_seed", [])
        )
        assert own == pytest.approx(same, nan_ok=True)
    assert summary(twice)["design"]["held_out_cases"] == 4
    # Scans of a pool case stay as they are.
    assert by_patient(table, {"p1": "p1", "p2": "p1"}) is table


def test_a_held_out_case_marked_as_removed_is_refused_by_the_summary() -> None:
    table = compare()
    table.loc[table["case"] == "h1", "removed"] = True
    with pytest.raises(UserError, match="marked as removed: h1"):
        summary(table)


def test_a_comparison_with_a_hole_is_refused() -> None:
    with pytest.raises(UserError, match=r"has 0 of arm worst_cluster, seed 0, case h1"):
        summary(compare().drop(index=0))


def test_the_summary_file_is_strict_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    path = tmp_path / "summary.json"
    table = compare([scores("base", *[NAN] * 5), BEFORE[1]])
    found = summary(table)
    write_summary(found, path)
    content = json.loads(path.read_text(), parse_constant=refuse)
    held_out = content["arms"]["worst_cluster"]["regions"]["mean"]["held_out"]
    assert held_out["detectable"] is None
    assert held_out["n_undefined"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_comparison_without_arms_gives_an_empty_summary() -> None:
    table = comparison([BEFORE[0]], [], {}, 0, {}, COHORT)
    found = summary(table)
    assert (found["verdict"], found["arms"]) == (None, {})


def test_without_an_effect_dice_tables_give_helps_once_in_twenty_at_most() -> None:
    """From the score tables of all models to the verdict: no defect, no effect."""
    n_seeds, n_randoms, n = DESIGNS["planted"]
    generator = np.random.default_rng(21)
    cohort = pd.DataFrame({"case": ["a", "b", *(f"h{i:02d}" for i in range(n))]})
    cohort["role"] = ["pool", "pool", *["held_out"] * n]
    cohort["train_case"] = cohort["role"] == "pool"
    models = retrained_models(
        {
            "arms": ["worst_cluster"],
            "random_arms": n_randoms,
            "seeds": list(range(n_seeds)),
        },
        base_seed=0,
    )
    arms = {"full": "full", **{name: model["arm"] for name, model in models.items()}}
    removed = {arm: ["a"] for arm in dict.fromkeys(arms.values()) if arm != "full"}
    helps = 0
    for _ in range(20):
        reaction = {
            arm: ARM * generator.standard_normal()
            + CASE * generator.standard_normal(len(cohort))
            for arm in removed
        }
        reaction["full"] = np.zeros(len(cohort))
        level = generator.normal(0.7, 0.1, len(cohort))
        tables = {}
        for name, arm in arms.items():
            dice = level + reaction[arm] + TRAINING * generator.standard_normal()
            dice += RESIDUAL * generator.standard_normal(len(cohort))
            model = "base" if name == "full" else f"retrained/{name}"
            tables[name] = pd.DataFrame(
                {"model": model, "case": cohort["case"], "region": "mean", "dice": dice}
            )
        before = [table for name, table in tables.items() if arms[name] == "full"]
        after = [table for name, table in tables.items() if arms[name] != "full"]
        changes = comparison(before, after, models, 0, removed, cohort)
        found = summary(changes, resamples=20)
        helps += found["arms"]["worst_cluster"]["verdict"] == "helps"
    assert helps <= 1


@pytest.mark.parametrize(
    ("effect", "word"), [(0.06, "helps"), (-0.06, "harms"), (0.0, None)]
)
def test_summary_of_a_whole_table(effect: float, word: str | None) -> None:
    design = DESIGNS["rigorous"]
    arms, changes = simulate(np.random.default_rng(8), design, effect)
    n_seeds, n = changes.shape[1:]
    index = pd.MultiIndex.from_product(
        [arms, range(n_seeds), [f"h{i:03d}" for i in range(n)], ["mean", "ET", "WT"]],
        names=["arm", "seed", "case", "region"],
    )
    table = index.to_frame(index=False)
    table["delta"] = np.repeat(changes.ravel(), 3)
    table["role"] = "held_out"
    table["removed"] = False
    found = summary(table, resamples=200)
    worst = found["arms"]["worst_cluster"]
    if word:
        assert worst["verdict"] == word
    else:
        assert worst["verdict"] not in ("helps", "harms")
    assert found["verdict"] == worst["sentence"]
    assert "verdict" not in found["arms"]["random_1"]

    held_out = worst["regions"]["mean"]["held_out"]
    assert held_out["mean"] == pytest.approx(changes[0].mean())
    assert held_out["mean_by_seed"] == pytest.approx(changes[0].mean(axis=1))
    assert held_out["seed_sd"] == pytest.approx(changes[0].mean(axis=1).std(ddof=1))
    assert held_out["random_p_floor"] == 0.05
    assert held_out["wilcoxon_p"] == stats.wilcoxon(changes[0].mean(axis=0)).pvalue
    # The question itself is not adjusted; the two regions beside it are, as a family.
    assert held_out["wilcoxon_p_holm"] == held_out["wilcoxon_p"]
    other = worst["regions"]["ET"]["held_out"]
    assert other["wilcoxon_p_holm"] == pytest.approx(min(1, 2 * other["wilcoxon_p"]))
    assert worst["regions"]["mean"]["kept"]["n"] == 0

    contrast = found["contrasts"]["best_cluster"]
    assert contrast["mean"] == pytest.approx((changes[0] - changes[1]).mean())
    assert contrast["interval_low"] < contrast["mean"] < contrast["interval_high"]
    assert list(found["contrasts"]) == ["best_cluster"]


def test_one_seed_is_said_to_leave_the_training_noise_unknown() -> None:
    table = compare().query("seed == 0")
    found = summary(table)
    assert found["design"]["training_noise"] == "one seed: training noise unknown"
    held_out = found["arms"]["worst_cluster"]["regions"]["mean"]["held_out"]
    assert math.isnan(held_out["seed_sd"])
    assert "2 held-out cases are too few" in found["verdict"]
