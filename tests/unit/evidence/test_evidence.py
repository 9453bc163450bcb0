"""Statistics of the arms: hand-computed values, other libraries, simulations."""

import json
import math
import runpy
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from casesim.errors import UserError
from casesim.evidence import evidence
from casesim.evidence.evidence import Array, Evidence, TrainingNoise
from casesim.pruning.pruning import Retrained, retrained_models

NAN = math.nan
SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"

COHORT = pd.DataFrame(
    {
        "case": ["p1", "p2", "p3", "h1", "h2"],
        "role": ["pool", "pool", "pool", "held_out", "held_out"],
        "train_case": ["true", "true", "false", "false", "false"],
        "planted": ["", "", "", "", ""],
    }
)
MODELS: dict[str, Retrained] = {
    "worst_cluster": {"arm": "worst_cluster", "seed": 0},
    "full-seed1": {"arm": "full", "seed": 1},
    "worst_cluster-seed1": {"arm": "worst_cluster", "seed": 1},
}
REMOVED = {"worst_cluster": ["p1"]}


def scores(model: str, *dice: float, region: str = "mean") -> pd.DataFrame:
    cases = COHORT["case"][: len(dice)]
    return pd.DataFrame({"model": model, "case": cases, "region": region, "dice": dice})


BEFORE = [
    scores("base", 0.5, 0.6, 0.7, 0.8, 0.9),
    scores("retrained/full-seed1", 0.4, 0.4, 0.4, 0.4, NAN),
]
AFTER = [
    scores("retrained/worst_cluster", 0.3, 0.6, 0.75, 0.9, 0.9),
    scores("retrained/worst_cluster-seed1", 0.4, 0.5, 0.4, 0.6, 0.9),
]


def compare(
    before: list[pd.DataFrame] = BEFORE,
    after: list[pd.DataFrame] = AFTER,
    removed: dict[str, list[str]] = REMOVED,
    cohort: pd.DataFrame = COHORT,
) -> pd.DataFrame:
    return evidence.comparison(before, after, MODELS, 0, removed, cohort)


# --- Before and after -----------------------------------------------------------------


def test_comparison_pairs_each_model_with_the_full_model_of_its_seed() -> None:
    table = compare()
    assert list(table.columns) == [
        *("arm", "seed", "case", "role", "removed", "region"),
        *("dice_before", "dice_after", "delta"),
    ]
    delta = table.set_index(["seed", "case"])["delta"]
    assert delta[0].to_dict() == pytest.approx(
        {"p1": -0.2, "p2": 0.0, "p3": 0.05, "h1": 0.1, "h2": 0.0}
    )
    assert delta[1].to_dict() == pytest.approx(
        {"p1": 0.0, "p2": 0.1, "p3": 0.0, "h1": 0.2, "h2": NAN}, nan_ok=True
    )
    assert set(table["case"][table["removed"]]) == {"p1"}
    assert set(table["case"][table["role"] == "held_out"]) == {"h1", "h2"}


def test_comparison_does_not_depend_on_the_order_of_tables_and_rows() -> None:
    shuffled = [table.iloc[::-1] for table in AFTER[::-1]]
    pd.testing.assert_frame_equal(compare(), compare(BEFORE[::-1], shuffled))


def test_summary_keeps_held_out_kept_and_removed_cases_apart() -> None:
    regions = evidence.summary(compare())["arms"]["worst_cluster"]["regions"]
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


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"worst_cluster": ["p1", "h1"]}, r"worst_cluster removes .* held out: h1"),
        ({"worst_cluster": ["p3"]}, r"no train cases: p3"),
        ({"worst_cluster": ["x"]}, r"no train cases: x"),
    ],
)
def test_a_leaking_removal_is_refused(
    removed: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compare(removed=removed)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("train_case", "true", r"Held-out cases that are train cases: h2"),
        ("role", "test", r"Unknown roles .*: test"),
        ("case", "p1", r"lists twice: p1"),
    ],
)
def test_a_cohort_without_a_clean_split_is_refused(
    column: str, value: str, message: str
) -> None:
    cohort = COHORT.copy()
    cohort.loc[4, column] = value
    with pytest.raises(UserError, match=message):
        compare(cohort=cohort)


def test_a_held_out_case_marked_as_removed_is_refused_by_the_summary() -> None:
    table = compare()
    table.loc[table["case"] == "h1", "removed"] = True
    with pytest.raises(UserError, match="marked as removed: h1"):
        evidence.summary(table)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (BEFORE[:1], AFTER, "no scores of the model full-seed1"),
        (BEFORE, AFTER[:1], "no scores of the model worst_cluster-seed1"),
        (BEFORE, [AFTER[0].iloc[:4], AFTER[1]], r"different cases .*: h2/mean"),
        (BEFORE, [pd.concat([AFTER[0]] * 2), AFTER[1]], r"list .* twice"),
    ],
)
def test_scores_that_do_not_pair_are_refused(
    before: list[pd.DataFrame], after: list[pd.DataFrame], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compare(before, after)


def test_a_comparison_with_a_hole_is_refused() -> None:
    with pytest.raises(UserError, match=r"has 0 of arm worst_cluster, seed 0, case h1"):
        evidence.summary(compare().drop(index=0))


def test_extremes_leave_removed_cases_aside() -> None:
    table = compare()
    (best, worst) = evidence.extremes(table, "worst_cluster", 0)
    assert (best[:2], worst[:2]) == (("most improved", "h1"), ("most worsened", "h2"))
    assert (best[2], worst[2]) == pytest.approx((0.1, 0.0))
    alone = table.query("case == 'p2'")
    (only,) = evidence.extremes(alone, "worst_cluster", 1)
    assert only[:2] == ("most improved", "p2")
    assert evidence.extremes(table, "random_1", 0) == []


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (1.0, ["most improved", "least improved"]),
        (-1.0, ["least worsened", "most worsened"]),
    ],
)
def test_a_case_that_improved_is_not_called_worsened(
    shift: float, words: list[str]
) -> None:
    table = compare()
    shifted = table.assign(delta=table["delta"] + shift)
    found = evidence.extremes(shifted, "worst_cluster", 0)
    assert [word for word, *_ in found] == words


def test_tables_are_written_as_documented(tmp_path: Path) -> None:
    evidence.write_comparison(compare(), tmp_path / "comparison.tsv")
    header, first, *_ = (tmp_path / "comparison.tsv").read_text().splitlines()
    assert header.split("\t")[:5] == ["arm", "seed", "case", "role", "removed"]
    assert first.split("\t")[:6] == [
        *("worst_cluster", "0", "h1", "held_out", "false", "mean")
    ]
    assert (tmp_path / "comparison.tsv").read_text().count("true") == 2


def test_the_script_writes_table_summary_and_figure(tmp_path: Path) -> None:
    def write(name: str, table: pd.DataFrame) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        table.to_csv(path, sep="\t", index=False)
        return str(path)

    removed = tmp_path / "pruning/worst_cluster/removed_cases.txt"
    removed.parent.mkdir(parents=True)
    removed.write_text("NA\n")
    # A case id that pandas would read as an undefined value.
    rename = {"case": {"p1": "NA"}}
    before = [write(f"before_{i}.tsv", t.replace(rename)) for i, t in enumerate(BEFORE)]
    after = [write(f"after_{i}.tsv", t.replace(rename)) for i, t in enumerate(AFTER)]
    outputs = {
        name: str(tmp_path / f"comparison.{name}")
        for name in ("table", "summary", "png", "svg")
    }
    job = SimpleNamespace(
        input=SimpleNamespace(
            before=before,
            after=after,
            removed=[str(removed)],
            cohort=write("cohort.tsv", COHORT.replace(rename)),
        ),
        output=SimpleNamespace(**outputs),
        params=SimpleNamespace(models=MODELS, seed=0),
        log=[str(tmp_path / "compare.log")],
    )
    script = str(SCRIPTS / "pruning/compare.py")
    runpy.run_path(script, init_globals={"snakemake": job}, run_name="__main__")
    table = pd.read_csv(outputs["table"], sep="\t", keep_default_na=False)
    assert set(table["case"][table["removed"]]) == {"NA"}
    summary = json.loads(Path(outputs["summary"]).read_text())
    assert summary["arms"]["worst_cluster"]["removed_cases"] == ["NA"]
    assert "too few" in summary["verdict"]
    assert all(Path(path).stat().st_size > 0 for path in outputs.values())


def test_the_summary_file_is_strict_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    path = tmp_path / "summary.json"
    table = compare([scores("base", *[NAN] * 5), BEFORE[1]])
    summary = evidence.summary(table)
    evidence.write_summary(summary, path)
    content = json.loads(path.read_text(), parse_constant=refuse)
    held_out = content["arms"]["worst_cluster"]["regions"]["mean"]["held_out"]
    assert held_out["detectable"] is None
    assert held_out["n_undefined"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_comparison_without_arms_gives_an_empty_summary() -> None:
    table = evidence.comparison([BEFORE[0]], [], {}, 0, {}, COHORT)
    summary = evidence.summary(table)
    assert (summary["verdict"], summary["arms"]) == (None, {})


# --- Statistics of one group ----------------------------------------------------------

# Differences between cross- and self-fertilised maize (Darwin), in eighths of an inch.
MAIZE = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75.0])


def test_signed_rank_p_of_a_published_example() -> None:
    """Wilcoxon, Biometrics Bulletin 1:80 (1945): p = 0.041."""
    assert evidence.signed_rank_p(MAIZE) == pytest.approx(0.041259765625)


def test_signed_rank_p_does_not_see_rounding_errors() -> None:
    exact = np.array([-1, 2, 2, -2, 3, 4.0])
    noisy = exact + np.array([1, -1, 1, -1, 1, -1]) * 1e-16
    assert evidence.signed_rank_p(noisy) == evidence.signed_rank_p(exact)


def test_signed_rank_p_without_any_change_is_one() -> None:
    assert evidence.signed_rank_p(np.zeros(8)) == 1
    assert math.isnan(evidence.signed_rank_p(np.zeros(0)))


def test_hodges_lehmann_by_hand() -> None:
    # Walsh averages of 1, 2, 6: 1, 1.5, 3.5, 2, 4, 6.
    assert evidence.hodges_lehmann(np.array([6.0, 1, 2])) == 2.75
    pairs = [(a + b) / 2 for i, a in enumerate(MAIZE) for b in MAIZE[i:]]
    assert evidence.hodges_lehmann(MAIZE) == statistics.median(pairs) == 25
    assert math.isnan(evidence.hodges_lehmann(np.zeros(0)))


def test_holm_by_hand() -> None:
    # Ordered: 0.01 x 4, 0.02 x 3, 0.03 x 2 (kept at 0.06), 0.5 x 1.
    adjusted = evidence.holm([0.02, 0.5, 0.01, NAN, 0.03])
    assert adjusted == pytest.approx([0.06, 0.5, 0.04, NAN, 0.06], nan_ok=True)
    assert evidence.holm([0.9, 0.8]) == [1.0, 1.0]
    assert evidence.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni(p: list[float]) -> None:
    for raw, adjusted in zip(p, evidence.holm(p), strict=True):
        assert raw <= adjusted <= 1
        assert adjusted <= max(raw, min(1, len(p) * max(p)))
    assert min(evidence.holm(p)) == min(1, len(p) * min(p))


def test_case_means_average_over_defined_seeds() -> None:
    changes = np.array([[0.1, NAN, NAN], [0.3, 0.5, NAN]])
    assert evidence.case_means(changes) == pytest.approx([0.2, 0.5])


def test_describe_by_hand() -> None:
    found = evidence.describe(np.array([[0.1, -0.2, 0.4, 0.0, NAN]]))
    assert found["n"] == 4
    assert found["n_undefined"] == 1
    assert found["mean"] == pytest.approx(0.075)
    assert found["median"] == pytest.approx(0.05)
    assert found["fraction_improved"] == 0.5


def test_describe_nothing_gives_nothing() -> None:
    found = evidence.describe(np.empty((2, 0)))
    assert found.pop("n") == 0
    assert found.pop("n_undefined") == 0
    assert all(math.isnan(value) for value in found.values())


def test_bootstrap_over_cases_agrees_with_scipy() -> None:
    changes = np.random.default_rng(5).gamma(2, 0.02, 30) - 0.02
    ours = evidence.bootstrap_interval(changes[None], resamples=20_000)
    scipys = stats.bootstrap(
        (changes,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx(tuple(scipys), abs=5e-4)


def test_bootstrap_over_seeds_and_cases_agrees_with_drawing_them_one_by_one() -> None:
    generator = np.random.default_rng(2)
    changes = 0.02 * generator.standard_normal((3, 1))
    changes = changes + 0.03 * generator.standard_normal((3, 12))
    changes[0, 3] = changes[1, 7] = NAN
    means = []
    for _ in range(6000):
        drawn = changes[generator.integers(3, size=3)][
            :, generator.integers(12, size=12)
        ]
        means.append(evidence.case_means(drawn).mean())
    expected = tuple(np.quantile(means, [0.025, 0.975]))
    found = evidence.bootstrap_interval(changes, resamples=20_000)
    assert found == pytest.approx(expected, abs=2e-3)


def test_bootstrap_sees_the_noise_between_seeds() -> None:
    by_seed = np.array([[-0.05], [0.0], [0.05]]) + np.zeros((3, 20))
    low, high = evidence.bootstrap_interval(by_seed)
    assert low < -0.03
    assert high > 0.03


def test_bootstrap_is_seeded_and_needs_two_cases() -> None:
    changes = np.random.default_rng(0).standard_normal((2, 9))
    first, second = (evidence.bootstrap_interval(changes, 500, 3) for _ in range(2))
    assert first == second
    assert first != evidence.bootstrap_interval(changes, 500, 4)
    assert np.isnan(evidence.bootstrap_interval(changes[:, :1])).all()


# --- Noise, random arms, power --------------------------------------------------------


def test_training_noise_of_one_seed_is_the_spread_of_the_random_arms() -> None:
    means = np.array([[0.5], [0.01], [0.03], [0.02]])
    randoms = np.array([False, True, True, True])
    noise = evidence.training_noise(means, randoms)
    assert noise is not None
    assert (noise.df, noise.source) == (2, "random_arms")
    assert noise.sd == pytest.approx(0.01)


def test_training_noise_of_one_seed_without_controls_is_unknown() -> None:
    means = np.array([[0.5], [0.01]])
    assert evidence.training_noise(means, np.array([False, True])) is None


def test_training_noise_of_seeds_is_neither_the_effect_nor_the_full_models_noise() -> (
    None
):
    effects = np.array([[0.1], [-0.2], [0.0]])
    of_full = np.array([[0.05, -0.03]])
    no_randoms = np.zeros(3, dtype=bool)
    noise = evidence.training_noise(effects - of_full, no_randoms)
    assert noise is not None
    assert (noise.df, noise.source) == (3, "seeds")
    # What is left over is the noise of the full model, against a row of zeros, shared.
    residual = np.array([0.04, -0.04])
    table_residuals = np.vstack([0.75 * residual, *[-0.25 * residual] * 3])
    assert noise.sd == pytest.approx(math.sqrt((table_residuals**2).sum() / 3))


def test_training_noise_of_seeds_is_unbiased() -> None:
    generator = np.random.default_rng(0)
    variances = []
    for _ in range(2000):
        runs = 0.01 * generator.standard_normal((5, 3))
        effects = generator.standard_normal((5, 1))
        noise = evidence.training_noise(
            (runs + effects)[1:] - (runs + effects)[:1], np.zeros(4, dtype=bool)
        )
        assert noise is not None
        variances.append(noise.sd**2)
    assert np.mean(variances) == pytest.approx(1e-4, rel=0.04)


def test_interval_without_training_noise_is_students() -> None:
    changes = np.random.default_rng(3).normal(0.02, 0.03, 15)
    found = evidence.change_interval(
        changes.mean(), changes.std(ddof=1), 15, TrainingNoise(0.0, 4, "seeds"), 2
    )
    expected = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(expected))


def test_interval_without_differences_between_cases_is_that_of_the_seeds() -> None:
    low, high = evidence.change_interval(
        0.1, 0.0, 15, TrainingNoise(0.01, 4, "seeds"), 3
    )
    half = stats.t.ppf(0.975, 4) * math.sqrt(2 * 0.01**2 / 3)
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half))


def test_interval_of_two_terms_agrees_with_welch() -> None:
    """Equal to Welch's interval where the two variances are those of two samples."""
    generator = np.random.default_rng(4)
    first, second = generator.normal(0, 1, 8), generator.normal(0, 3, 13)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    noise = TrainingNoise(first.std(ddof=1) / math.sqrt(2), 7, "seeds")
    found = evidence.change_interval(
        first.mean() - second.mean(), second.std(ddof=1), 13, noise, 8
    )
    assert found == pytest.approx(tuple(expected))


def test_random_p_counts_arms_that_are_at_least_as_good() -> None:
    randoms = np.array([0.0, 0.01, 0.03, 0.02])
    found = evidence.against_random(0.02, randoms)
    assert (found.p, found.floor) == (3 / 5, 1 / 5)
    assert evidence.against_random(0.05, randoms).p == found.floor


def test_with_nineteen_random_arms_the_permutation_decides() -> None:
    randoms = np.linspace(-0.01, 0.01, 19)
    best = evidence.against_random(0.0101, randoms)
    second = evidence.against_random(0.0099, randoms)
    assert (best.p, best.better) == (0.05, True)
    assert (second.p, second.better) == (0.1, False)


def test_with_fewer_random_arms_their_spread_decides() -> None:
    # Mean 0, sd 0.01, error 0.01 x sqrt(4/3); one-sided t of 2 df at 5 %: 2.92.
    randoms = np.array([-0.01, 0.0, 0.01])
    limit = 2.91999 * 0.01 * math.sqrt(4 / 3)
    assert evidence.against_random(limit + 1e-4, randoms).better
    assert not evidence.against_random(limit - 1e-4, randoms).better
    assert not evidence.against_random(1.0, randoms[:1]).better


@pytest.mark.parametrize(
    ("n", "sd", "expected"),
    [
        (20, 0.03, 0.019),
        (20, 0.05, 0.031),
        (50, 0.03, 0.012),
        (50, 0.05, 0.020),
        (100, 0.03, 0.008),
        (100, 0.05, 0.014),
        (384, 0.03, 0.004),
        (384, 0.05, 0.007),
    ],
)
def test_detectable_by_cases_agrees_with_the_normal_approximation(
    n: int, sd: float, expected: float
) -> None:
    """(1.960 + 0.842) x sd / sqrt(n), to which t adds its tails at small n."""
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * sd / math.sqrt(n)
    assert normal == pytest.approx(expected, abs=6e-4)
    found = evidence.detectable_by_cases(sd, n)
    assert normal < found < normal * (1 + 1.2 / n)


def test_detectable_by_cases_is_found_by_a_t_test_in_four_of_five() -> None:
    generator = np.random.default_rng(0)
    effect = evidence.detectable_by_cases(0.05, 10)
    changes = generator.normal(effect, 0.05, (10_000, 10))
    found = np.asarray(stats.ttest_1samp(changes, 0, axis=1).pvalue) < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_detectable_by_cases_of_too_little_is_undefined() -> None:
    assert math.isnan(evidence.detectable_by_cases(0.05, 1))
    assert math.isnan(evidence.detectable_by_cases(NAN, 10))
    assert evidence.detectable_by_cases(0.0, 10) == 0


# --- The verdict ----------------------------------------------------------------------


def evidence_of(
    mean: float = 0.05,
    *,
    n: int = 40,
    case_sd: float = 0.03,
    seeds: int = 3,
    noise: TrainingNoise | None = TrainingNoise(0.005, 9, "seeds"),  # noqa: B008
    randoms: Array | None = None,
) -> Evidence:
    randoms = np.linspace(-0.01, 0.01, 19) if randoms is None else randoms
    return Evidence(
        arm="worst_cluster",
        n=n,
        mean=mean,
        case_sd=case_sd,
        mean_by_seed=[mean] * seeds,
        noise=noise,
        n_randoms=randoms.size,
        random_sd=randoms.std(ddof=1) if randoms.size > 1 else NAN,
        random=evidence.against_random(mean, randoms) if randoms.size else None,
    )


NO_RANDOMS = np.zeros(0)


@pytest.mark.parametrize(
    ("found", "word", "reason"),
    [
        (evidence_of(), "helps", r"\+0\.050 .*better than 19 of 19 random arms"),
        (evidence_of(-0.05), "harms", r"-0\.050"),
        (
            evidence_of(0.001),
            "no difference larger than 0.014",
            r"\+0\.001 .*interval -0\.012 to \+0\.014",
        ),
        (evidence_of(n=0), "cannot tell", "no held-out cases"),
        (evidence_of(n=5), "cannot tell", "5 held-out cases are too few"),
        (
            evidence_of(seeds=1, noise=None, randoms=NO_RANDOMS),
            "cannot tell",
            "training noise is unknown: there is one seed",
        ),
        (
            evidence_of(noise=None),
            "cannot tell",
            "no held-out case with a defined Dice",
        ),
        (
            evidence_of(randoms=NO_RANDOMS),
            "cannot tell",
            "no random arm beside it",
        ),
        (
            evidence_of(randoms=np.array([0.0, 0.04, -0.04])),
            "cannot tell",
            r"too few or too close: better than 3 of 3 .*cannot be below 0\.25",
        ),
        (
            evidence_of(randoms=np.linspace(0.03, 0.06, 19)),
            "cannot tell",
            "random removals do as well",
        ),
        (
            evidence_of(0.01, noise=TrainingNoise(0.02, 9, "seeds")),
            "cannot tell",
            "mostly training noise",
        ),
        (
            evidence_of(0.01, case_sd=0.2),
            "cannot tell",
            "mostly differences between cases",
        ),
        (
            evidence_of(0.01, seeds=1, noise=TrainingNoise(0.02, 4, "random_arms")),
            "cannot tell",
            "one seed leaves the training noise to be guessed",
        ),
    ],
)
def test_verdict_follows_its_rules(found: Evidence, word: str, reason: str) -> None:
    verdict = evidence.verdict(found)
    assert verdict.word == word
    assert pd.Series([verdict.sentence]).str.contains(reason).all(), verdict.sentence
    assert verdict.sentence.startswith("worst_cluster")


DESIGNS = {
    "rigorous": (3, 19, 40),
    "few_random_arms": (3, 5, 40),
    "few_cases": (2, 3, 8),
    "planted": (2, 5, 12),
    "one_seed": (1, 5, 40),
    "one_seed_many_random_arms": (1, 19, 20),
}
# Standard deviations of Dice: of a training's mean, of a case's reaction to an arm, of
# one case in one training, and of what removals do by chance.
TRAINING, CASE, RESIDUAL, ARM = 0.006, 0.03, 0.02, 0.003


def simulate(
    generator: np.random.Generator, design: tuple[int, int, int], effect: float
) -> tuple[list[str], Array]:
    """Arms and changes (arm, seed, case); `effect` is what `worst_cluster` gains.

    All changes of one seed share the noise of its full model, as in reality.
    """
    n_seeds, n_randoms, n = design
    arms = ["worst_cluster", "best_cluster"]
    arms += [f"random_{r}" for r in range(1, n_randoms + 1)]
    shape = (len(arms) + 1, n_seeds, n)
    dice = TRAINING * generator.standard_normal((*shape[:2], 1))
    dice = dice + RESIDUAL * generator.standard_normal(shape)
    dice[1:] += ARM * generator.standard_normal((len(arms), 1, 1))
    dice[1:] += CASE * generator.standard_normal((len(arms), 1, n))
    dice[1] += effect
    return arms, dice[1:] - dice[:1]


def stated_detectable(design: tuple[int, int, int]) -> float:
    """What `detectable` states when it is told the true noise."""
    n_seeds, n_randoms, n = design
    training = math.sqrt(TRAINING**2 + RESIDUAL**2 / n)
    randoms = math.sqrt(ARM**2 + CASE**2 / n + training**2 / n_seeds)
    case_sd = math.sqrt(CASE**2 + 2 * RESIDUAL**2 / n_seeds)
    if n_seeds > 1:
        noise = TrainingNoise(training, (n_randoms + 2) * (n_seeds - 1), "seeds")
    else:
        noise = TrainingNoise(randoms, n_randoms - 1, "random_arms")
    return evidence.detectable(case_sd, n, noise, n_seeds, randoms, n_randoms)


@pytest.mark.parametrize(
    ("design", "change"),
    [
        ((5, 19, 100), 0.015),
        ((5, 19, 200), 0.014),
        ((5, 19, 384), 0.013),
        ((5, 5, 200), 0.015),
        ((2, 19, 200), 0.020),
        ((3, 19, 200), 0.016),
    ],
)
def test_the_reasons_given_in_rigorous_yaml(
    design: tuple[int, int, int], change: float
) -> None:
    assert round(stated_detectable(design), 3) == change


def share_of_helps(
    design: tuple[int, int, int], effect: float, experiments: int, seed: int
) -> float:
    generator = np.random.default_rng(seed)
    helps = 0
    for _ in range(experiments):
        found = evidence.gather(*simulate(generator, design, effect))
        helps += evidence.verdict(found[0]).word == "helps"
    return helps / experiments


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_without_an_effect_the_verdict_is_helps_in_one_of_twenty_at_most(
    design: tuple[int, int, int],
) -> None:
    assert share_of_helps(design, 0.0, 150, seed=11) <= 0.05


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_the_stated_detectable_effect_is_found_in_about_80_percent(
    design: tuple[int, int, int],
) -> None:
    effect = stated_detectable(design)
    assert share_of_helps(design, effect, 200, seed=12) == pytest.approx(0.8, abs=0.1)
    assert share_of_helps(design, effect / 2, 50, seed=13) < 0.65


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
        changes = evidence.comparison(before, after, models, 0, removed, cohort)
        summary = evidence.summary(changes, resamples=20)
        helps += summary["arms"]["worst_cluster"]["verdict"] == "helps"
    assert helps <= 1


def test_without_random_arms_nothing_is_detectable() -> None:
    noise = TrainingNoise(0.005, 4, "seeds")
    assert evidence.detectable(0.03, 40, noise, 3, NAN, 0) == math.inf


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
    summary = evidence.summary(table, resamples=200)
    worst = summary["arms"]["worst_cluster"]
    if word:
        assert worst["verdict"] == word
    else:
        assert worst["verdict"] not in ("helps", "harms")
    assert summary["verdict"] == worst["sentence"]
    assert "verdict" not in summary["arms"]["random_1"]

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

    contrast = summary["contrasts"]["best_cluster"]
    assert contrast["mean"] == pytest.approx((changes[0] - changes[1]).mean())
    assert contrast["interval_low"] < contrast["mean"] < contrast["interval_high"]
    assert list(summary["contrasts"]) == ["best_cluster"]


def test_one_seed_is_said_to_leave_the_training_noise_unknown() -> None:
    table = compare().query("seed == 0")
    summary = evidence.summary(table)
    assert summary["design"]["training_noise"] == "one seed: training noise unknown"
    held_out = summary["arms"]["worst_cluster"]["regions"]["mean"]["held_out"]
    assert math.isnan(held_out["seed_sd"])
    assert "2 held-out cases are too few" in summary["verdict"]


# --- Planted defects ------------------------------------------------------------------

PLANTED = {
    "a": "swapped_labels",
    "b": "no_enhancement",
    "c": "missed_lesion",
    "d": "",
    "e": "corrupted_channel",
    "f": "",
}
PLANTED_COHORT = pd.DataFrame(
    {
        "case": [*PLANTED, "h"],
        "train_case": ["true"] * len(PLANTED) + ["false"],
        "planted": [*PLANTED.values(), "other_patient"],
    }
)


def detect(defect: str, scores: list[float], k: int | None = None) -> dict[str, Any]:
    """The row on one kind of defect, for scores of the cases a to f."""
    score = pd.Series(scores, index=[*PLANTED])
    table = evidence.detection(PLANTED_COHORT, {"row_mean": score}, k)
    assert table["score"].tolist() == ["row_mean", "row_mean"]
    (row,) = table[table["defect"] == defect].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_detection_by_hand() -> None:
    # From the lowest score on: a (defect), b (control), c (defect), f, d; e left out.
    found = detect("label", [0.1, 0.2, 0.3, 0.9, 0.0, 0.8])
    assert (found["n_cases"], found["n_defects"], found["n_controls"]) == (5, 2, 1)
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["prevalence"] == 0.4
    assert (found["k"], found["precision_at_k"], found["recall_at_k"]) == (2, 0.5, 0.5)
    assert (found["controls_in_top_k"], found["controls_above"]) == (1, 1)


def test_the_scores_that_are_compared() -> None:
    clusters = pd.DataFrame(
        {
            "case": [*"abcdef"],
            "cluster": [1, 2, 1, 2, 2, 2],
            "row_mean": [0.1, 0.6, 0.2, 0.7, 0.65, 0.8],
            "row_max": [0.3, 0.7, 0.9, 0.8, 0.8, 0.9],
            "worst": [True, False, True, False, False, False],
        }
    )
    effect = pd.Series([0.0, -0.3, 0.1, -0.4, 0.2, 0.0], index=[*"bcdaef"])
    base = pd.Series(0.5, index=[*"abcdefh"])
    scores = evidence.suspicion_scores(clusters, effect, base, {})
    assert [*scores] == ["cluster", "row_mean", "row_max", "donor_effect", "base_dice"]
    table = evidence.detection(PLANTED_COHORT, scores).set_index(["score", "defect"])
    for name in ("cluster", "row_mean", "donor_effect"):
        assert table.loc[(name, "label"), "auroc"] == 1.0
        assert table.loc[(name, "label"), "controls_above"] == 0
    assert table.loc[("base_dice", "label"), "auroc"] == 0.5
    # c serves a case well, so only a is found by its row maximum.
    assert table.loc[("row_max", "label"), "auroc"] == pytest.approx((3 + 0.5) / 6)
    quality = dict(zip("abcdef", [0.1, 0.9, 0.2, 0.9, 0.9, 0.9], strict=True))
    scores = evidence.suspicion_scores(clusters, effect, base, quality)
    assert evidence.detection(PLANTED_COHORT, scores)["auroc"].iloc[-1] == 0.5
    assert [*scores][-1] == "cleanlab"


def test_image_defects_are_judged_apart_from_label_defects() -> None:
    found = detect("image", [0.1, 0.2, 0.3, 0.9, 0.25, 0.8])
    assert (found["n_cases"], found["n_defects"]) == (4, 1)
    assert found["auroc"] == pytest.approx(2 / 3)
    assert found["controls_above"] == 1


def test_ties_count_half_and_unscored_cases_last() -> None:
    cluster = detect("label", [0, 0, 1, 1, 1, 1])
    assert cluster["auroc"] == pytest.approx((2.5 + 1) / 6)
    unscored = detect("label", [0.1, 0.5, NAN, 0.6, 0.7, 0.8])
    assert unscored["n_unscored"] == 1
    assert unscored["auroc"] == pytest.approx(3 / 6)


def test_tied_cases_share_their_precision() -> None:
    # a and c are found together with b: 2 of 3 is the precision at both.
    found = detect("label", [0.1, 0.1, 0.1, 0.9, 0.9, 0.9])
    assert found["average_precision"] == pytest.approx(2 / 3)


def test_a_tie_at_rank_k_is_shared() -> None:
    # One place is left for three tied cases, one of them marked.
    suspicion = np.array([3.0, 2, 2, 2, 1])
    marked = np.array([True, True, False, False, True])
    assert evidence.expected_in_top(suspicion, marked, 2) == pytest.approx(1 + 1 / 3)
    assert evidence.expected_in_top(suspicion, marked, 5) == 3
    assert evidence.expected_in_top(suspicion, marked, 0) == 0


def test_k_may_be_the_number_of_removed_cases() -> None:
    found = detect("label", [0.1, 0.2, 0.3, 0.9, 0.0, 0.8], k=3)
    assert (found["k"], found["recall_at_k"]) == (3, 1.0)
    assert found["precision_at_k"] == pytest.approx(2 / 3)


def test_an_unknown_defect_is_refused() -> None:
    cohort = PLANTED_COHORT.assign(planted="mystery")
    with pytest.raises(UserError, match="mystery"):
        evidence.detection(cohort, {})
