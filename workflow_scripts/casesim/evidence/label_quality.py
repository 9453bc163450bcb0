"""The field's baseline for finding wrong labels: cleanlab, out of fold.

A model that never saw a case judges its label map: the pool is split into folds, one
model is trained without each, and a case's label-quality score follows from the
probabilities that the model of its own fold gives (Lad and Mueller, *Estimating label
quality and errors in semantic segmentation data via any model*, arXiv 2307.05080).

Only the standard library is imported with this module: the folds are needed while
Snakemake reads its rules.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def folds(
    cases: Iterable[str],
    number: int,
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """The fold of each case, from 0 on.

    Patients are dealt out in an order drawn by name, each to the first of the smallest
    folds. So folds differ by one patient at most, no patient is in two of them, and the
    order of `cases` does not matter.

    Args:
        cases: ids of all pool cases.
        number: number of folds; 0 for none, which leaves the result empty.
        seed: of the draw.
        patients: the patient of each case; a case that is not named is its own.
    """
    if number == 0:
        return {}

    def drawn(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}/fold/{patient}".encode()).digest()

    by_patient: dict[str, list[str]] = defaultdict(list)
    for case in sorted(set(cases)):
        by_patient[(patients or {}).get(case, case)].append(case)
    sizes = [0] * number
    fold_of: dict[str, int] = {}
    for patient in sorted(by_patient, key=drawn):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(by_patient[patient])
        fold_of |= dict.fromkeys(by_patient[patient], fold)
    return fold_of


def label_quality(
    labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]
) -> float:
    """cleanlab's label-quality score of one case, between 0 and 1; low is suspect.

    `cleanlab.segmentation.rank.get_label_quality_scores` with its default method, the
    soft minimum at temperature 0.1 over the probabilities of the given labels. cleanlab
    knows images; here the whole volume is one image, its slices below each other,
    because the case is what is judged and what was labelled in one go. The soft minimum
    does not see how voxels are arranged, so only the unit matters: over single slices,
    the lowest of them would hang on one slice, and on how many there are.

    Args:
        labels: (a, b, c), numbers of the classes; below 0 (nnU-Net's mark for outside
            the brain) counts as background.
        logits: (class, a, b, c), from a model that was not trained on the case.

    Raises:
        ValueError: labels and logits of different shapes, or a label without logits.
    """
    import numpy as np
    from cleanlab.segmentation.rank import get_label_quality_scores
    from scipy.special import softmax

    if labels.shape != logits.shape[1:]:
        raise ValueError(f"labels {labels.shape} do not fit logits {logits.shape}")
    given = np.maximum(labels, 0).astype(np.int64)
    if given.max() >= len(logits):
        raise ValueError(f"label {given.max()} has no logits: {len(logits)} classes")
    probabilities = softmax(logits.astype(np.float64), axis=0)
    scores, _ = get_label_quality_scores(
        given.reshape(1, len(given), -1),
        probabilities.reshape(1, len(logits), len(given), -1),
        verbose=False,
    )
    return float(scores[0])
