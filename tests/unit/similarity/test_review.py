"""Kinds, effects and clusters: one ranking, and a note where they differ."""

import pandas as pd

from casesim.similarity import kinds
from casesim.similarity.review import FIRST, review

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
        "evidence": "",
    },
    index=pd.Index(CASES, name="case"),
)
CLUSTERS = pd.DataFrame(
    {"case": CASES[::-1], "worst": [False] * 4 + [True, True], "cluster": 1}
)


def test_what_is_accused_comes_first_then_the_lowest_rows() -> None:
    table = review(EFFECTS, NAMED, CLUSTERS)
    assert table["case"].tolist() == [*"ebfacd"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table.columns[: len(FIRST)].tolist() == FIRST


def test_a_note_says_why_cluster_and_kind_differ() -> None:
    notes = review(EFFECTS, NAMED, CLUSTERS).set_index("case")["note"]
    assert notes["b"] == notes["c"] == notes["d"] == ""
    assert "in the worst cluster by its row (row mean 0.200)" in notes["a"]
    assert notes["e"].startswith("not in the worst cluster: its model still serves")
    assert notes["f"].startswith("not in the worst cluster: a bad image")
