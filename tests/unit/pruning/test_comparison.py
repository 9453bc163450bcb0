"""Before and after, case by case: pairs, leaks, extremes, files."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from unit.pruning.comparisons import AFTER, BEFORE, COHORT, MODELS, NAN, compare

from casesim.errors import UserError
from casesim.inference import overlap
from casesim.pruning.comparison import (
    extremes,
    read_comparison,
    write_comparison,
)

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"


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


def test_extremes_leave_removed_cases_aside() -> None:
    table = compare()
    (best, worst) = extremes(table, "worst_cluster", 0)
    assert (best[:2], worst[:2]) == (("most improved", "h1"), ("most worsened", "h2"))
    assert (best[2], worst[2]) == pytest.approx((0.1, 0.0))
    alone = table.query("case == 'p2'")
    (only,) = extremes(alone, "worst_cluster", 1)
    assert only[:2] == ("most improved", "p2")
    assert extremes(table, "random_1", 0) == []


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
    found = extremes(shifted, "worst_cluster", 0)
    assert [word for word, *_ in found] == words


def test_a_table_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    table = compare().replace({"case": {"p1": "NA", "p2": "007"}})
    table.loc[0, ["dice_after", "delta"]] = NAN
    write_comparison(table, tmp_path / "comparison.tsv")
    again = read_comparison(tmp_path / "comparison.tsv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_tables_are_written_as_documented(tmp_path: Path) -> None:
    write_comparison(compare(), tmp_path / "comparison.tsv")
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
    counts = dict.fromkeys((*overlap.COUNTS, "n_undefined"), 0)
    before, after = (
        [
            write(f"{name}_{i}.tsv", table.replace(rename).assign(**counts))
            for i, table in enumerate(tables)
        ]
        for name, tables in (("before", BEFORE), ("after", AFTER))
    )
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
            decisions=[],
        ),
        output=SimpleNamespace(**outputs),
        params=SimpleNamespace(
            models=MODELS,
            base_seed=0,
            seed=0,
            train=["NA"],
            corrected=[],
            patients={},
        ),
        log=[str(tmp_path / "compare.log")],
    )
    script = str(SCRIPTS / "pruning/compare.py")
    runpy.run_path(script, init_globals={"snakemake": job}, run_name="__main__")
    table = read_comparison(outputs["table"])
    assert set(table["case"][table["removed"]]) == {"NA"}
    summary = json.loads(Path(outputs["summary"]).read_text())
    assert summary["arms"]["worst_cluster"]["removed_cases"] == ["NA"]
    assert "too few" in summary["verdict"]
    assert all(Path(path).stat().st_size > 0 for path in outputs.values())
