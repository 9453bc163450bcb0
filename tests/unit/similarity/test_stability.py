"""Shares by hand, agreement against scipy and the tables of the literature."""

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from casesim.inference import overlap
from casesim.similarity import stability
from casesim.similarity.clustering import cluster

BEST, WORST = 0.8, 0.2
CASES = [f"case_{i}" for i in range(8)]


def blocks(low: tuple[int, ...] = (1, 4), noise: float = 0.01) -> pd.DataFrame:
    """8 x 8, with low rows that no resample can confuse with the others."""
    random = np.random.default_rng(0)
    values = np.full((8, 8), BEST)
    values[list(low)] = WORST
    values += random.normal(0, noise, values.shape)
    return pd.DataFrame(values, index=CASES, columns=CASES)


def shares(
    matrix: pd.DataFrame, refits: pd.DataFrame | None = None, **options: Any
) -> pd.Series:
    options = {"number": 2, "resamples": 40, **options}
    found = stability.worst_shares(matrix, refits, **options)
    return pd.Series(found.worst, index=sorted(matrix.index))


def test_what_is_clear_stays_in_every_resample() -> None:
    found = shares(blocks())
    assert found[["case_1", "case_4"]].tolist() == [1, 1]
    assert found.drop(["case_1", "case_4"]).sum() == 0


def test_the_order_of_rows_and_columns_does_not_matter() -> None:
    matrix = blocks(noise=0.6)
    expected = shares(matrix)
    assert ((expected > 0) & (expected < 1)).any()
    shuffled = shares(matrix.iloc[::-1, [3, 1, 0, 2, 7, 5, 6, 4]])
    pd.testing.assert_series_equal(shuffled, expected)


def test_a_refit_that_turns_out_sound_halves_the_share() -> None:
    matrix = blocks((1, 4))
    refit = pd.DataFrame(BEST, index=["case_4"], columns=CASES[::-1])
    found = shares(matrix, refit, resamples=400, min_size=1)
    # case_4 is low in a resample exactly when its first fit was drawn.
    assert found["case_1"] == 1
    assert found["case_4"] == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))
    assert 0 < found["case_4"] < 1


def test_equal_refits_change_no_more_than_the_draws() -> None:
    matrix = blocks()
    found = shares(matrix, matrix.iloc[[1, 2]])
    pd.testing.assert_series_equal(found, shares(matrix))


def test_a_column_that_decides_alone_is_drawn_as_often_as_a_bootstrap_draws_it() -> (
    None
):
    # Rows differ in the last column only. Without it, no tree can be cut.
    columns = [*CASES, "other"]
    matrix = pd.DataFrame(BEST, index=CASES, columns=columns)
    matrix.loc[["case_1", "case_4"], "other"] = WORST
    found = stability.worst_shares(matrix, number="auto", resamples=600)
    never = (1 - 1 / 9) ** 9
    tolerance = 4 * math.sqrt(never * (1 - never) / 600)
    assert found.undecided / 600 == pytest.approx(never, abs=tolerance)
    assert found.worst[1] == found.worst[4] == 1 - found.undecided / 600


def test_the_own_case_is_left_out_of_the_means() -> None:
    # case_0 is by far the best on itself, and the worst for all others.
    matrix = pd.DataFrame(BEST, index=CASES[:4], columns=CASES[:4])
    matrix.loc["case_0"] = WORST
    matrix.loc["case_0", "case_0"] = 100
    found = shares(matrix, min_size=1)
    assert found["case_0"] > 0.9
    assert found.drop("case_0").max() == 0


def test_dice_distances_keep_the_columns_and_draw_the_fits() -> None:
    matrix = blocks()
    assert shares(matrix, metric="dice", min_size=1).max() <= 1
    with_refit = shares(matrix, matrix.iloc[[1]], metric="dice", min_size=1)
    assert with_refit.between(0, 1).all()


def test_undefined_cells_are_left_out() -> None:
    matrix = blocks()
    matrix.iloc[:, 2] = np.nan
    found = shares(matrix)
    assert found[["case_1", "case_4"]].tolist() == [1, 1]


def test_refits_must_fit_the_matrix() -> None:
    matrix = blocks()
    with pytest.raises(ValueError, match="different cases"):
        shares(matrix, matrix.iloc[[0], :5])
    with pytest.raises(ValueError, match="without a row"):
        shares(matrix, matrix.iloc[[0]].rename(index={"case_0": "stranger"}))


# Agreement


def test_icc_of_shrout_and_fleiss() -> None:
    # Table 2 of Shrout and Fleiss (1979): six targets, four judges; ICC(1,1) = 0.17.
    # The interval is that of R's psych::ICC.
    judges = np.array(
        [
            [9, 2, 5, 8],
            [6, 1, 3, 2],
            [8, 4, 6, 8],
            [7, 1, 2, 6],
            [10, 5, 6, 9],
            [6, 2, 4, 7],
        ],
        dtype=float,
    )
    within, _, icc, low, high = stability._variance(judges)
    assert within**2 == pytest.approx(6.26, abs=0.005)
    assert icc == pytest.approx(0.17, abs=0.005)
    assert low == pytest.approx(-0.13, abs=0.005)
    assert high == pytest.approx(0.72, abs=0.005)


def test_standard_deviations_by_hand() -> None:
    # Means 0.2, 0.5, 0.8; both fits 0.01 to either side.
    means = np.array([0.2, 0.5, 0.8])
    found = stability.agreement(means - 0.01, means + 0.01)
    # MSW = 2 x 0.01^2, MSB = 2 x 0.09.
    assert found.n == 3
    assert found.sd_between_fits == pytest.approx(math.sqrt(2e-4))
    assert found.sd_between_cases == pytest.approx(math.sqrt((0.18 - 2e-4) / 2))
    assert found.icc == pytest.approx((0.18 - 2e-4) / (0.18 + 2e-4))
    assert found.icc_low < found.icc < found.icc_high
    assert found.spearman == 1
    assert math.isnan(found.spearman_low)


def test_the_interval_of_the_icc_covers_in_95_percent() -> None:
    random = np.random.default_rng(3)
    truth = 0.8
    covered = 0
    for _ in range(400):
        cases = random.normal(0, math.sqrt(truth), (12, 1))
        values = cases + random.normal(0, math.sqrt(1 - truth), (12, 2))
        low, high = stability._variance(values)[3:]
        covered += low <= truth <= high
    assert covered / 400 == pytest.approx(0.95, abs=0.035)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.3, 0.5]), st.floats(0, 1)),
        min_size=3,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_rank_correlation_is_scipy_s(pairs: list[tuple[float, float]]) -> None:
    values = np.array(pairs)
    found = stability.rank_correlation(values[None])[0]
    if np.ptp(values, axis=0).min() == 0:
        assert math.isnan(found)
    else:
        expected = stats.spearmanr(values[:, 0], values[:, 1]).statistic
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_bootstrap_interval_is_scipy_s() -> None:
    random = np.random.default_rng(5)
    first = random.normal(size=20)
    second = first + random.normal(0, 0.5, 20)
    found = stability.agreement(first, second, resamples=4000)
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: stability.rank_correlation(
            np.stack([a, b], axis=-1).reshape(-1, 20, 2)
        ),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    assert found.spearman_low == pytest.approx(expected.low, abs=0.02)
    assert found.spearman_high == pytest.approx(expected.high, abs=0.02)


def test_undefined_pairs_are_left_out_and_too_few_say_nothing() -> None:
    nan = math.nan
    assert stability.agreement(np.array([0.1, nan]), np.array([0.2, 0.3])).n == 1
    none = stability.agreement(np.array([]), np.array([]))
    assert none.n == 0
    assert math.isnan(none.spearman)
    assert math.isnan(none.icc)
    same = stability.agreement(np.array([0.1, 0.4]), np.array([0.1, 0.4]))
    assert same.icc == same.icc_low == 1


# What is written


def test_the_tables(tmp_path: Path) -> None:
    matrix = blocks()
    clusters = cluster(matrix, number=2, bootstraps=2).clusters
    refits = matrix.iloc[[0, 1, 6]] + 0.02
    result = stability.stability(matrix, clusters, refits, number=2, resamples=20)
    stability.write(result, tmp_path / "s.tsv", tmp_path / "s.json")
    table = pd.read_csv(tmp_path / "s.tsv", sep="\t").set_index("case")
    assert set(table.index[:2]) == {"case_1", "case_4"}
    assert table.loc["case_1", "worst"]
    assert table["refit_row_mean"].notna().sum() == 3
    others = matrix.loc["case_6"].drop("case_6")
    assert table.loc["case_6", "row_mean"] == pytest.approx(others.mean())
    assert table.loc["case_6", "refit_row_mean"] == pytest.approx(others.mean() + 0.02)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["refitted"] == ["case_0", "case_1", "case_6"]
    assert summary["agreement"]["n"] == 3
    assert summary["agreement"]["spearman_low"] is None
    assert summary["agreement"]["sd_between_fits"] == pytest.approx(0.02 / math.sqrt(2))
    assert "100% of 20 resamples" in summary["statement"]


def test_without_refits_it_is_said_what_the_shares_leave_out() -> None:
    matrix = blocks()
    clusters = cluster(matrix, number=2, bootstraps=2).clusters
    result = stability.stability(matrix, clusters, number=2, resamples=5)
    assert result.summary["agreement"] is None
    assert result.summary["resampled"] == ["columns"]
    assert "training noise is not in these numbers" in result.summary["statement"]
    assert result.table["refit_row_mean"].isna().all()


def test_the_script_reads_the_refits_of_its_region(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = blocks()
    overlap.write_table(matrix, tmp_path / "matrix.tsv", index=True)
    clusters = cluster(matrix, bootstraps=2).clusters
    clusters["worst"] = clusters["worst"].map({True: "true", False: "false"})
    clusters.to_csv(tmp_path / "clusters.tsv", sep="\t", index=False)
    refitted = ["case_1", "case_6"]
    for case in refitted:
        rows = [
            {"model": f"refitted/{case}", "case": column, "region": region}
            | dict.fromkeys(overlap.COUNTS, 1)
            | {"dice": dice, "n_undefined": 0}
            for column in CASES
            for region, dice in (("mean", 0.1), ("WT", 0.3))
        ]
        overlap.write_table(pd.DataFrame(rows), tmp_path / f"{case}.tsv")
    outputs = {name: str(tmp_path / f"s.{name}") for name in ("json", "png", "svg")}
    job = SimpleNamespace(
        input=SimpleNamespace(
            matrix=str(tmp_path / "matrix.tsv"),
            clusters=str(tmp_path / "clusters.tsv"),
            refits=[str(tmp_path / f"{case}.tsv") for case in refitted],
        ),
        output=SimpleNamespace(
            table=str(tmp_path / "s.tsv"),
            summary=outputs["json"],
            png=outputs["png"],
            svg=outputs["svg"],
        ),
        params=SimpleNamespace(
            similarity={"region": "WT", "distance": "euclidean"},
            clusters={"number": 2, "min_size": 2, "max_removed_share": 0.3},
            patients={},
            refitted=refitted,
            test=CASES,
        ),
        log=[str(tmp_path / "log.txt")],
    )
    script = Path(__file__).parents[3] / "workflow_scripts/similarity/stability.py"
    runpy.run_path(str(script), {"snakemake": job}, "__main__")
    table = pd.read_csv(tmp_path / "s.tsv", sep="\t", index_col="case")
    again = table["refit_row_mean"].dropna()
    assert again.to_dict() == pytest.approx({"case_1": 0.3, "case_6": 0.3})
    assert all(Path(path).stat().st_size for path in outputs.values())
    statement = json.loads(Path(outputs["json"]).read_text())["statement"]
    assert statement in capsys.readouterr().out
