"""Kinds, effects and clusters: one ranking, and a note where they differ."""

import pandas as pd

from casesim.similarity import kinds
from casesim.similarity.review import FIRST, review, review_quickly

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
