"""Detection of planted defects, counted by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from unit.pruning.comparisons import NAN

from casesim.evidence.detection import (
    auroc_interval,
    detection,
    expected_in_top,
    suspicion_scores,
)
from casesim.evidence.truth import read_truth

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
TRUTH = read_truth(PLANTED_COHORT)
HOURS = {"rows": 2.0, "folds": 0.5}


def detect(defect: str, scores: list[float], k: int | None = None) -> dict[str, Any]:
    """The row on one kind of defect, for scores of the cases a to f."""
    score = pd.Series(scores, index=[*PLANTED])
    table = detection(TRUTH, {"row_mean": score}, HOURS, k)
    table = table[table["kind"] == "any"]
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


def cases_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case": [*"abcdef"],
            "row_mean": [0.1, 0.6, 0.2, 0.7, 0.65, 0.8],
            "row_max": [0.3, 0.7, 0.9, 0.8, 0.8, 0.9],
            "worst": [True, False, True, False, False, False],
            "donor_effect": [-0.4, 0.0, -0.3, 0.1, 0.2, 0.0],
            "suspicion": [5.0, 0.0, 3.0, 0.5, 0.0, 0.0],
            "combined_rank": [1.0, 4.0, 2.0, 5.0, 6.0, 3.0],
            "channel_score": [0.1, 0.2, 0.3, 0.2, 2.0, 0.4],
            "base_dice": 0.5,
            "base_suspicion": [0.0, 1.0, 2.0, 0.0, 0.0, 0.0],
        }
    )


def test_the_scores_that_are_compared() -> None:
    scores = suspicion_scores(cases_table(), {})
    assert [*scores] == [
        *("cluster", "row_mean", "row_max", "donor_effect", "signature", "combined"),
        *("channel", "base_dice", "base_signature"),
    ]
    table = detection(TRUTH, scores, HOURS)
    table = table[table["kind"] == "any"].set_index(["score", "defect"])
    for name in ("cluster", "row_mean", "donor_effect", "signature", "combined"):
        assert table.loc[(name, "label"), "auroc"] == 1.0
        assert table.loc[(name, "label"), "controls_above"] == 0
    assert table.loc[("base_dice", "label"), "auroc"] == 0.5
    assert table.loc[("channel", "image"), "auroc"] == 1.0
    # c serves a case well, so only a is found by its row maximum.
    assert table.loc[("row_max", "label"), "auroc"] == pytest.approx((3 + 0.5) / 6)
    quality = dict(zip("abcdef", [0.1, 0.9, 0.2, 0.9, 0.9, 0.9], strict=True))
    scores = suspicion_scores(cases_table(), quality)
    assert [*scores][-1] == "cleanlab"
    table = detection(TRUTH, scores, HOURS)
    cleanlab = table[(table["score"] == "cleanlab") & (table["defect"] == "image")]
    assert (cleanlab["auroc"] == 0.5).all()


def test_each_score_has_its_cost() -> None:
    table = detection(TRUTH, suspicion_scores(cases_table(), {"a": 1.0}), HOURS)
    hours = table.groupby("score")["gpu_hours"].unique().map(list).to_dict()
    assert hours["base_dice"] == hours["channel"] == hours["base_signature"] == [0]
    assert hours["row_mean"] == hours["signature"] == hours["cluster"] == [2.0]
    assert hours["cleanlab"] == [0.5]
    assert hours["combined"] == [2.5]


def test_kinds_and_strengths_are_judged_apart() -> None:
    planted = ["over_segmentation:1", "over_segmentation:3", "missed_lesion:0.3", ""]
    planted += ["boundary_noise:1", ""]
    cohort = PLANTED_COHORT.iloc[:6].assign(planted=planted)
    score = pd.Series([0.5, 0.1, 0.2, 0.6, 0.55, 0.4], index=[*"abcdef"])
    table = detection(read_truth(cohort), {"x": score}, HOURS)
    found = table.set_index(["kind", "strength"])["auroc"]
    assert found.index.get_level_values("kind").tolist() == [
        *("any", "missed_lesion", "over_segmentation"),
        *("over_segmentation", "over_segmentation"),
    ]
    # Of the sound ones and the control (0.6, 0.55, 0.4) two are above 0.5.
    assert found["over_segmentation", 1] == pytest.approx(2 / 3)
    assert found["over_segmentation", 3] == 1
    assert (table["n_controls"] == 1).all()


def test_the_interval_is_delongs() -> None:
    """Against the bootstrap over cases, and by hand for a perfect score."""
    draw = np.random.default_rng(0)
    bad, sound = draw.normal(1, 1, 30), draw.normal(0, 1, 60)
    score = np.concatenate([bad, sound])
    marked = np.arange(90) < 30
    low, high = auroc_interval(score, marked)
    aurocs = [
        (draw.choice(bad, 30)[:, None] > draw.choice(sound, 60)[None, :]).mean()
        for _ in range(2000)
    ]
    assert (low, high) == pytest.approx(np.quantile(aurocs, [0.025, 0.975]), abs=0.02)
    assert auroc_interval(np.array([2.0, 3, 0, 1]), np.arange(4) < 2) == (1.0, 1.0)
    assert np.isnan(auroc_interval(np.array([2.0, 0, 1]), np.arange(3) < 1)).all()


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
