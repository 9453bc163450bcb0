"""How well scores of the train cases find defects that are known."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn import metrics

from casesim.evidence.truth import CONTROL, IMAGE, LABEL, SOUND

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def expected_in_top(suspicion: Array, marked: Mask, k: int) -> float:
    """How many marked cases the k most suspicious hold, if ties are broken at
    random."""
    if k == 0:
        return 0.0
    limit = np.sort(suspicion)[::-1][min(k, suspicion.size) - 1]
    above, tied = suspicion > limit, suspicion == limit
    share = (min(k, suspicion.size) - above.sum()) / tied.sum()
    return float((above & marked).sum() + share * (tied & marked).sum())


def suspicion_scores(
    cases: pd.DataFrame, label_quality: Mapping[str, float]
) -> dict[str, pd.Series]:
    """The scores that are compared as detectors, each by case id, low is suspect.

    Args:
        cases: `cases.tsv`.
        label_quality: cleanlab's score of each train case; empty where it was not
            asked for.

    Returns:
        `cluster` (0 in the worst cluster, 1 outside), `row_mean`, `row_max`,
        `donor_effect`, `signature` (of the strongest kind of label error), `combined`
        (ranks averaged), `channel` (of the image), `base_dice` (of the base model,
        which was trained on the case), `base_signature` (of the kinds that it sees
        alone) and, unless empty, `cleanlab`.
    """
    rows = cases.set_index("case")
    scores = {
        "cluster": 1.0 - rows["worst"].astype(float),
        "row_mean": rows["row_mean"],
        "row_max": rows["row_max"],
        "donor_effect": rows["donor_effect"],
        "signature": -rows["suspicion"],
        "combined": rows["combined_rank"],
        "channel": -rows["channel_score"],
        "base_dice": rows["base_dice"],
        "base_signature": -rows["base_suspicion"],
    }
    if label_quality:
        scores["cleanlab"] = pd.Series(dict(label_quality), dtype=float)
    return {name: score.astype(float) for name, score in scores.items()}


# What each score needs beside the base model.
COSTS = {
    "base_dice": (),
    "base_signature": (),
    "channel": (),
    "cleanlab": ("folds",),
    "combined": ("rows", "folds"),
}


def gpu_hours(name: str, hours: Mapping[str, float]) -> float:
    """What a score costs beside the base model, which every study has.

    Args:
        name: of the score.
        hours: of the `rows` (fine-tunes and their cells) and of the `folds`; NaN where
            it is not known.
    """
    return float(sum(hours[part] for part in COSTS.get(name, ("rows",))))


def detection(
    truth: pd.DataFrame,
    scores: Mapping[str, pd.Series],
    hours: Mapping[str, float],
    k: int | None = None,
) -> pd.DataFrame:
    """How well scores of the train cases find the known defects: `detection.tsv`.

    Label defects and image defects are judged apart: while one kind is looked for,
    cases of the other kinds are left out, for finding them is neither right nor wrong.
    Unusual but right cases (controls) count as sound.

    Args:
        truth: from `truth.read_truth`.
        scores: name to score by case id; a *low* score makes a case suspect. Cases
            without a score count as the least suspect.
        hours: as in `gpu_hours`.
        k: how many cases are reviewed; by default as many as there are defects.

    Returns:
        A row for each score and what is looked for: `score`, `defect` (label or
        image), `kind` (`any`, or one), `strength` (NaN for all), `n_cases`,
        `n_defects`, `n_controls`, `n_unscored`, `auroc`, `auroc_low` and `auroc_high`
        (95 % interval, DeLong's), `average_precision`, `prevalence` (the average
        precision of a random order), `k`, `precision_at_k`, `recall_at_k`,
        `controls_in_top_k`, `controls_above`: controls that are more suspect than the
        least suspect defect, and `gpu_hours`. All kinds together come first.
    """
    rows = []
    for defect in (LABEL, IMAGE):
        for kind, strength, wanted in _targets(truth, defect):
            others = truth["defect"].isin([SOUND, CONTROL])
            cases = truth[wanted | others]
            found = wanted[cases.index].to_numpy(dtype=bool)
            is_control = (cases["defect"] == CONTROL).to_numpy(dtype=bool)
            for name, values in scores.items():
                score = values.reindex(cases.index).to_numpy(dtype=float)
                rows.append(
                    {
                        "score": name,
                        "defect": defect,
                        "kind": kind,
                        "strength": strength,
                        **_measure(score, found, is_control, k),
                        "gpu_hours": gpu_hours(name, hours),
                    }
                )
    return pd.DataFrame(rows)


def _targets(
    truth: pd.DataFrame, defect: str
) -> Iterator[tuple[str, float, pd.Series]]:
    """What is looked for: any defect, each kind, each strength of a graded kind."""
    of_class = truth["defect"] == defect
    if not of_class.any():
        return
    yield "any", math.nan, of_class
    for kind, group in truth[of_class].groupby("kind"):
        is_kind = of_class & (truth["kind"] == kind)
        yield str(kind), math.nan, is_kind
        strengths = sorted(group["strength"].dropna().unique())
        if len(strengths) > 1:
            for strength in strengths:
                yield str(kind), strength, is_kind & (truth["strength"] == strength)


def _measure(
    score: Array, is_defect: Mask, is_control: Mask, k: int | None
) -> dict[str, float | int]:
    reviewed = min(k or int(is_defect.sum()), len(score))
    unscored = np.isnan(score)
    suspicion = -np.where(unscored, np.inf, score)
    found = expected_in_top(suspicion, is_defect, reviewed)
    # Ranks, because scikit-learn takes no infinite scores.
    ranks = stats.rankdata(suspicion)
    auroc, precision, low, high = math.nan, 1.0, math.nan, math.nan
    if not is_defect.all():
        auroc = float(metrics.roc_auc_score(is_defect, ranks))
        precision = float(metrics.average_precision_score(is_defect, ranks))
        low, high = auroc_interval(ranks, is_defect)
    return {
        "n_cases": len(score),
        "n_defects": int(is_defect.sum()),
        "n_controls": int(is_control.sum()),
        "n_unscored": int(unscored.sum()),
        "auroc": auroc,
        "auroc_low": low,
        "auroc_high": high,
        "average_precision": precision,
        "prevalence": float(is_defect.mean()),
        "k": reviewed,
        "precision_at_k": found / reviewed,
        "recall_at_k": found / int(is_defect.sum()),
        "controls_in_top_k": expected_in_top(suspicion, is_control, reviewed),
        "controls_above": int(
            (is_control & (suspicion > suspicion[is_defect].min())).sum()
        ),
    }


def auroc_interval(suspicion: Array, is_defect: Mask) -> tuple[float, float]:
    """95 % interval of the AUROC by DeLong's variance (Biometrics 44:837, 1988).

    NaN with fewer than two cases on a side; within 0 and 1.
    """
    positive, negative = suspicion[is_defect], suspicion[~is_defect]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        return math.nan, math.nan
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (
        positive[:, None] == negative[None, :]
    )
    variance = wins.mean(axis=1).var(ddof=1) / m + wins.mean(axis=0).var(ddof=1) / n
    half = float(stats.norm.ppf(0.975) * math.sqrt(variance))
    auroc = float(wins.mean())
    return max(0.0, auroc - half), min(1.0, auroc + half)
