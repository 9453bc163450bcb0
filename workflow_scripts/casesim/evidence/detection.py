"""How well scores of the train cases find defects that are known."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn import metrics

from casesim.cohort.phantom.catalogue import CONTROLS, IMAGE_DEFECTS, LABEL_DEFECTS
from casesim.errors import UserError

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
    clusters: pd.DataFrame,
    donor_effect: pd.Series,
    base_dice: pd.Series,
    label_quality: Mapping[str, float],
) -> dict[str, pd.Series]:
    """The scores that are compared as detectors, each by case id, low is suspect.

    Args:
        clusters: from `clustering.read_clusters`.
        donor_effect: row effect of each train case (`effects.case_effects`).
        base_dice: the base model's Dice on each case, which it was trained on.
        label_quality: cleanlab's score of each train case; empty where it was not
            asked for.

    Returns:
        `cluster` (0 in the worst cluster, 1 outside), `row_mean`, `row_max`,
        `donor_effect`, `base_dice` and, unless empty, `cleanlab`.
    """
    rows = clusters.set_index("case")
    scores = {
        "cluster": 1.0 - rows["worst"].astype(float),
        "row_mean": rows["row_mean"],
        "row_max": rows["row_max"],
        "donor_effect": donor_effect,
        "base_dice": base_dice,
    }
    if label_quality:
        scores["cleanlab"] = pd.Series(dict(label_quality), dtype=float)
    return scores


def detection(
    cohort: pd.DataFrame, scores: Mapping[str, pd.Series], k: int | None = None
) -> pd.DataFrame:
    """How well scores of the train cases find the planted defects: `detection.tsv`.

    Label defects and image defects are judged apart: while one kind is looked for,
    cases of the other kind are left out, for finding them is neither right nor wrong.
    Unusual but right cases (controls) count as sound.

    Args:
        cohort: `cohort.tsv`, with columns `case`, `train_case` and `planted`.
        scores: name to score by case id; a *low* score makes a case suspect. Cases
            without a score count as the least suspect.
        k: how many cases are reviewed; by default as many as there are defects.

    Returns:
        A row for each score and kind that was planted: `score`, `defect` (label or
        image), `n_cases`, `n_defects`, `n_controls`, `n_unscored`, `auroc`,
        `average_precision`, `prevalence` (the average precision of a random order),
        `k`, `precision_at_k`, `recall_at_k`, `controls_in_top_k`, and `controls_above`:
        controls that are more suspect than the least suspect defect.

    Raises:
        UserError: an unknown name in the column `planted`.
    """
    train = cohort[cohort["train_case"].astype(str).str.lower() == "true"]
    planted = train.set_index("case")["planted"].fillna("").astype(str)
    known = {"", *LABEL_DEFECTS, *IMAGE_DEFECTS, *CONTROLS}
    if unknown := sorted(set(planted) - known):
        raise UserError(
            f"Unknown defects in results/cohort.tsv: {', '.join(unknown)}. Known ones: "
            f"{', '.join([*LABEL_DEFECTS, *IMAGE_DEFECTS, *CONTROLS])}."
        )
    rows = []
    for defect, names in (("label", LABEL_DEFECTS), ("image", IMAGE_DEFECTS)):
        if not planted.isin(names).any():
            continue
        cases = planted[planted.isin(["", *names, *CONTROLS])].sort_index()
        is_defect = cases.isin(names).to_numpy(dtype=bool)
        is_control = cases.isin(CONTROLS).to_numpy(dtype=bool)
        reviewed = min(k or int(is_defect.sum()), len(cases))
        for name, values in scores.items():
            score = values.astype(float).reindex(cases.index).to_numpy()
            unscored = np.isnan(score)
            suspicion = -np.where(unscored, np.inf, score)
            found = expected_in_top(suspicion, is_defect, reviewed)
            # Ranks, because scikit-learn takes no infinite scores.
            ranks = stats.rankdata(suspicion)
            auroc, precision = math.nan, 1.0
            if not is_defect.all():
                auroc = float(metrics.roc_auc_score(is_defect, ranks))
                precision = float(metrics.average_precision_score(is_defect, ranks))
            rows.append(
                {
                    "score": name,
                    "defect": defect,
                    "n_cases": len(cases),
                    "n_defects": int(is_defect.sum()),
                    "n_controls": int(is_control.sum()),
                    "n_unscored": int(unscored.sum()),
                    "auroc": auroc,
                    "average_precision": precision,
                    "prevalence": float(is_defect.mean()),
                    "k": reviewed,
                    "precision_at_k": found / reviewed,
                    "recall_at_k": found / int(is_defect.sum()),
                    "controls_in_top_k": expected_in_top(
                        suspicion, is_control, reviewed
                    ),
                    "controls_above": int(
                        (is_control & (suspicion > suspicion[is_defect].min())).sum()
                    ),
                }
            )
    return pd.DataFrame(rows)
