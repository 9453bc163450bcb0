"""The end of a run, read by someone who has never seen it."""

from typing import Any

import pandas as pd
import pytest

from casesim.report.summary import summarise
from casesim.similarity.kinds import NOTHING, TOO_FEW

CLUSTERING: dict[str, Any] = {
    "cases": [f"c{i}" for i in range(12)],
    "worst_cases": ["c1", "c2"],
    "statement": "2 clusters (by silhouette, 0.700). Worst: cluster 1, 2 of 12 cases.",
}
COMPARISON: dict[str, Any] = {
    "verdict": "worst_cluster helps: held-out Dice changes by +0.031.",
    "arms": {},
}
LOOK_AT = ["results/pruning/comparison.png", "results/similarity/cases.tsv"]


def cases(*kinds: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case": [f"c{i + 1}" for i in range(len(kinds))],
            "donor_effect": [-0.4, -0.25, -0.01, 0.0][: len(kinds)],
            "recipient_effect": [-0.1, float("nan"), 0.0, 0.02][: len(kinds)],
            "kind": kinds,
            "evidence": ["" if kind == NOTHING else "because" for kind in kinds],
        }
    )


def test_the_whole_text() -> None:
    table = cases("over-segmented", "bad image", NOTHING, NOTHING)
    text = summarise(CLUSTERING, table, COMPARISON, LOOK_AT)
    assert text == (
        "# What 12 train cases teach\n\n"
        "Verdict: removing the worst cluster helps: held-out Dice changes by +0.031."
        "\n\n"
        "Worst cluster: c1, c2. 2 clusters (by silhouette, 0.700). Worst: cluster 1, "
        "2 of 12 cases.\n\n"
        "Review first:\n"
        "1. c1: over-segmented (because)\n"
        "2. c2: bad image (because)\n"
        "3. c3: nothing conspicuous, only the lowest of the rest (other cases lose "
        "0.010 Dice by its model)\n\n"
        "Open results/pruning/comparison.png and results/similarity/cases.tsv.\n"
    )
    assert len(text.splitlines()) < 15


def test_a_few_cases_have_no_kind_but_an_order() -> None:
    text = summarise(CLUSTERING, cases(TOO_FEW).assign(evidence="few"), None, [])
    assert "1. c1: too few cases to tell, only the lowest of the rest (" in text


def test_who_gains_does_not_lose_less_than_nothing() -> None:
    text = summarise(CLUSTERING, cases(NOTHING).assign(donor_effect=0.02), None, [])
    assert "(other cases gain 0.020 Dice by its model)" in text


def test_without_a_retrained_model_there_is_no_verdict() -> None:
    text = summarise(CLUSTERING, cases(NOTHING, NOTHING), None, LOOK_AT)
    assert "Verdict" not in text
    assert "2. c2" in text
    assert "3." not in text


def test_without_a_worst_cluster_it_says_why() -> None:
    clustering = {**CLUSTERING, "worst_cases": [], "statement": "One cluster."}
    text = summarise(clustering, cases(NOTHING), COMPARISON, LOOK_AT)
    assert "No worst cluster: One cluster." in text


def test_a_large_cluster_is_named_in_part() -> None:
    clustering = {**CLUSTERING, "worst_cases": [f"c{i}" for i in range(8)]}
    text = summarise(clustering, cases(NOTHING), COMPARISON, LOOK_AT)
    assert "c5 and 2 more." in text


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"lowest_rows": {"sentence": "lowest_rows harms: x."}}, "lowest_rows harms"),
        ({"random_1": {}}, "no arm was chosen by the matrix"),
    ],
)
def test_another_arm_has_the_word_without_that_of_the_worst_cluster(
    arms: dict[str, Any], said: str
) -> None:
    comparison = {"verdict": None, "arms": arms}
    assert said in summarise(CLUSTERING, cases(NOTHING), comparison, LOOK_AT)


def test_the_kind_of_error_is_the_reason_where_it_is_known() -> None:
    table = cases("wrong label?").assign(kind="shifted label?")
    text = summarise(CLUSTERING, table, None, LOOK_AT)
    assert "1. c1: shifted label? (" in text
