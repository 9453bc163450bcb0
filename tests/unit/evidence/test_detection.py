"""Detection of planted defects, counted by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from unit.pruning.comparisons import NAN

from casesim.errors import UserError
from casesim.evidence.detection import detection, expected_in_top, suspicion_scores

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
    table = detection(PLANTED_COHORT, {"row_mean": score}, k)
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
    scores = suspicion_scores(clusters, effect, base, {})
    assert [*scores] == ["cluster", "row_mean", "row_max", "donor_effect", "base_dice"]
    table = detection(PLANTED_COHORT, scores).set_index(["score", "defect"])
    for name in ("cluster", "row_mean", "donor_effect"):
        assert table.loc[(name, "label"), "auroc"] == 1.0
        assert table.loc[(name, "label"), "controls_above"] == 0
    assert table.loc[("base_dice", "label"), "auroc"] == 0.5
    # c serves a case well, so only a is found by its row maximum.
    assert table.loc[("row_max", "label"), "auroc"] == pytest.approx((3 + 0.5) / 6)
    quality = dict(zip("abcdef", [0.1, 0.9, 0.2, 0.9, 0.9, 0.9], strict=True))
    scores = suspicion_scores(clusters, effect, base, quality)
    assert detection(PLANTED_COHORT, scores)["auroc"].iloc[-1] == 0.5
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
    assert expected_in_top(suspicion, marked, 2) == pytest.approx(1 + 1 / 3)
    assert expected_in_top(suspicion, marked, 5) == 3
    assert expected_in_top(suspicion, marked, 0) == 0


def test_k_may_be_the_number_of_removed_cases() -> None:
    found = detect("label", [0.1, 0.2, 0.3, 0.9, 0.0, 0.8], k=3)
    assert (found["k"], found["recall_at_k"]) == (3, 1.0)
    assert found["precision_at_k"] == pytest.approx(2 / 3)


def test_an_unknown_defect_is_refused() -> None:
    cohort = PLANTED_COHORT.assign(planted="mystery")
    with pytest.raises(UserError, match="mystery"):
        detection(cohort, {})
