"""Kinds, effects and clusters: one ranking, and a note where they differ."""

import math
from pathlib import Path

import pandas as pd
import pytest
from unit.similarity.simulated_errors import SOUND, Defect, simulate_errors

from casesim.similarity import kinds
from casesim.similarity.edits import EDITS
from casesim.similarity.kinds import classify
from casesim.similarity.review import (
    FIRST,
    read_cases,
    review,
    review_quickly,
    write_cases,
)
from casesim.similarity.signatures import signatures

CASES = [*"abcdef"]
EFFECTS = pd.DataFrame(
    {
        "rank": range(1, 7),
        "case": CASES,
        "donor_effect": [-0.5, -0.3, -0.1, 0.0, 0.01, 0.02],
        "row_mean": [0.2, 0.4, 0.6, 0.7, 0.71, 0.72],
    }
)
NAMED = pd.DataFrame(
    {
        "kind": [
            kinds.NOTHING,
            kinds.DISPLACED,
            kinds.HARD,
            kinds.NOTHING,
            f"{kinds.EXCHANGED}: edema and core",
            kinds.BAD_IMAGE,
        ],
        "strength": [0.0, 4.0, 9.0, 0.0, 6.0, 1.9],
        "suspicion": [0.5, 4.0, 0.0, 0.0, 6.0, 0.0],
        "evidence": "",
    },
    index=pd.Index(CASES, name="case"),
)
CLUSTERS = pd.DataFrame(
    {"case": CASES[::-1], "worst": [False] * 4 + [True, True], "cluster": 1}
)
BASE = pd.DataFrame(
    {"base_dice": [0.9, 0.5, 0.6, 0.7, 0.8, 0.85], "base_suspicion": 0.0},
    index=pd.Index(CASES, name="case"),
)


def test_what_is_accused_comes_first_then_the_lowest_rows() -> None:
    table = review(EFFECTS, NAMED, CLUSTERS, BASE)
    assert table["case"].tolist() == [*"ebfacd"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table.columns[: len(FIRST)].tolist() == FIRST


def test_an_undefined_value_has_no_rank_and_takes_none_away() -> None:
    """Dice of a case without the label: its other signs still count."""
    base = BASE.assign(base_dice=[math.nan, 0.5, 0.6, 0.7, 0.8, 0.85])
    table = review(EFFECTS, NAMED, CLUSTERS, base).set_index("case")
    # The lowest row, and the third most suspect.
    assert table.loc["a", "combined_rank"] == (1 + 3) / 2
    quick = review_quickly(NAMED, base["base_dice"]).set_index("case")
    assert quick.loc["a", "combined_rank"] == 3
    assert quick["combined_rank"].notna().all()


@pytest.mark.parametrize("with_edits", [True, False])
def test_all_that_is_named_is_written_and_read_back(
    tmp_path: Path, with_edits: bool
) -> None:
    errors, base = simulate_errors([SOUND] * 11 + [Defect(grown=0.5)])
    rows = [(case, name, 0.03, 2.0) for case in errors.cases for name in EDITS]
    edits = pd.DataFrame(rows, columns=["case", "edit", "gain", "by"])
    found = signatures(errors, base, {}, changes=edits if with_edits else None)
    named = classify(found, errors.cases)
    effects = pd.DataFrame({"case": errors.cases, "rank": range(12)})
    effects[["donor_effect", "row_mean"]] = 0.1, 0.5
    clusters = pd.DataFrame({"case": errors.cases, "worst": [*[False] * 11, True]})
    alone = pd.DataFrame(
        {"base_dice": 0.5, "base_suspicion": 0.0}, index=pd.Index(errors.cases)
    )
    table = review(effects, named, clusters, alone)
    write_cases(table, tmp_path / "cases.tsv")
    again = read_cases(tmp_path / "cases.tsv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_note_says_why_cluster_and_kind_differ() -> None:
    notes = review(EFFECTS, NAMED, CLUSTERS, BASE).set_index("case")["note"]
    assert notes["b"] == notes["c"] == notes["d"] == ""
    assert "in the worst cluster by its row (row mean 0.200)" in notes["a"]
    assert notes["e"].startswith("not in the worst cluster: its model still serves")
    assert notes["f"].startswith("not in the worst cluster: a bad image")


def test_the_combined_rank_is_the_mean_of_the_ranks_that_there_are() -> None:
    combined = review(EFFECTS, NAMED, CLUSTERS, BASE).set_index("case")["combined_rank"]
    # By row, base Dice and suspicion: b is 2nd, 1st and 2nd; c 3rd, 2nd and tied 5th.
    assert combined["b"] == (2 + 1 + 2) / 3
    assert combined["c"] == (3 + 2 + 5) / 3
    quality = dict(zip(CASES, [0.9, 0.1, 0.2, 0.3, 0.4, 0.5], strict=True))
    table = review(EFFECTS, NAMED, CLUSTERS, BASE, quality).set_index("case")
    assert table.loc["b", "combined_rank"] == (2 + 1 + 2 + 1) / 4
    assert table.loc["a", "label_quality"] == 0.9


def test_the_quick_look_ranks_by_what_the_base_says() -> None:
    dice = BASE["base_dice"]
    table = review_quickly(NAMED, dice)
    # Accused by strength, then by Dice and suspicion: c is lower than d and a.
    assert table["case"].tolist() == [*"ebfcda"]
    assert "label_quality" not in table
    quality = dict(zip(CASES, [0.1, 0.9, 0.8, 0.5, 0.6, 0.7], strict=True))
    table = review_quickly(NAMED, dice, quality).set_index("case")
    # Dice: d is 3rd; suspicion: tied 5th; quality: 2nd.
    assert table.loc["d", "combined_rank"] == (3 + 5 + 2) / 3
    assert table.loc["a", "label_quality"] == 0.1
