"""Where the tree is cut, and which of its clusters may be called the worst."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import squareform

from casesim.errors import UserError
from casesim.similarity.distances import fill_undefined
from casesim.similarity.tree import cut_at, leaf_order

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_CLUSTERS = 10  # silhouette is looked at for 2 .. MOST_CLUSTERS clusters
# Kaufman & Rousseeuw, Finding Groups in Data (1990), table 4.
WEAK_SILHOUETTE = 0.25


# The labels of each cut of one tree, by the number of clusters.
Cuts = Callable[[int], IntArray]


def cuts_of(tree: FloatArray) -> Cuts:
    """The cuts of a tree, each made when it is first asked for."""
    order = leaf_order(tree)
    return cache(lambda number: cut_at(tree, number, order))


def silhouettes(
    cuts: Cuts, condensed: FloatArray, most: int = MOST_CLUSTERS
) -> dict[int, float]:
    """Mean silhouette (Rousseeuw 1987) for 2 to min(most, cases - 1) clusters.

    Numbers that tied merges make impossible are left out.
    """
    from sklearn import config_context
    from sklearn.metrics import silhouette_score

    square = squareform(fill_undefined(condensed))
    result = {}
    # What it would look for here costs more than the silhouettes of a small tree.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for number in range(2, min(most, len(square) - 1) + 1):
            labels = cuts(number)
            if labels.max() == number:
                result[number] = float(
                    silhouette_score(square, labels, metric="precomputed")
                )
    return result


Verdict = Literal[
    "allowed", "beside smaller", "too small", "too large", "not comparable"
]
# What a cut may hand out, the most wanted first.
PREFERENCE: tuple[Verdict, ...] = ("allowed", "beside smaller", "too small")


def most_removable(cases: int, max_removed_share: float) -> int:
    """How many cases may be removed: the share rounded down, but at least one."""
    return max(1, math.floor(max_removed_share * cases + 1e-9))


def worst_cluster(
    labels: IntArray,
    row_means: FloatArray,
    min_size: int = 2,
    max_removed_share: float = 0.3,
) -> tuple[int | None, Verdict]:
    """The cluster of a cut with the lowest mean of row means, under the size rule.

    The size rule must not turn a sound cluster into the worst one just because the
    truly worst one has the wrong size:

    - `allowed`: the lowest cluster has at least `min_size` cases and at most the share
      that may be removed. It is handed out.
    - `beside smaller`: only clusters below `min_size` are lower still, and the lowest
      one of allowed size lies nearer to them, in mean Dice, than to all other cases,
      and below the mean of all cases outside it. It is handed out.
    - `too small`: the lowest cluster is below `min_size`, and what comes next is sound.
      The lowest one is handed out all the same: fewer cases, but the right ones.
    - `too large`: the lowest cluster has more cases than may be removed. None.
    - `not comparable`: fewer than two clusters have a defined mean. None.

    Args:
        labels: cluster of each row.
        row_means: mean Dice of each row, own patient left out; NaN rows are left out.

    Returns:
        The cluster's number (None where none may be removed), and the verdict.
    """
    largest = most_removable(len(labels), max_removed_share)
    means = pd.Series(row_means).groupby(np.asarray(labels)).mean().dropna()
    sizes = np.bincount(labels)
    ascending = [int(name) for name in means.sort_values(kind="stable").index]
    if len(ascending) < 2:
        return None, "not comparable"
    lowest = ascending[0]
    if sizes[lowest] > largest:
        return None, "too large"
    if sizes[lowest] >= min_size:
        return lowest, "allowed"
    following = next((name for name in ascending if sizes[name] >= min_size), None)
    if following is not None and sizes[following] <= largest:
        rank = ascending.index(following)
        lower = np.nanmean(row_means[np.isin(labels, ascending[:rank])])
        others = row_means[np.isin(labels, ascending[rank + 1 :])]
        mean = means[following]
        if (
            len(others)
            and mean - lower < np.nanmean(others) - mean
            and mean < np.nanmean(row_means[labels != following])
        ):
            return following, "beside smaller"
    return lowest, "too small"


@dataclass(frozen=True)
class Cut:
    """A cut of the tree, and the cluster that it hands out for removal."""

    labels: IntArray
    worst: int | None
    silhouettes: dict[int, float]
    statement: str

    @property
    def number(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max())


def cut(
    tree: FloatArray,
    condensed: FloatArray,
    row_means: FloatArray,
    number: int | Literal["auto"] = "auto",
    min_size: int = 2,
    max_removed_share: float = 0.3,
) -> Cut:
    """Cut the tree, by a fixed number or where the silhouette is highest.

    `auto` considers 2 to 10 clusters, first those cuts whose lowest cluster has an
    allowed size, then those of the next verdict of `worst_cluster`; the silhouette
    chooses among equals (the smaller number where it ties). If every such cut has a
    lowest cluster too large to be removed, the tree is cut further until it is small
    enough.

    Returns:
        The cut, with a sentence on how it came about.

    Raises:
        UserError: a fixed number exceeds the number of cases.
    """
    cases = len(row_means)
    size_rule = (min_size, max_removed_share)
    cuts = cuts_of(tree)
    scores = silhouettes(cuts, condensed)
    if number == "auto":
        chosen, how = _choose_number(tree, cuts, row_means, scores, size_rule)
    else:
        if number > cases:
            raise UserError(
                f"clusters.number is {number}, but there are {cases} train cases. "
                "Lower it, or set it to auto."
            )
        chosen, how = number, "as clusters.number says"
    labels = cuts(chosen)
    worst, verdict = worst_cluster(labels, row_means, *size_rule)
    return Cut(
        labels=labels,
        worst=worst,
        silhouettes=scores,
        statement=_statement(labels, row_means, worst, verdict, how, size_rule),
    )


def _choose_number(
    tree: FloatArray,
    cuts: Cuts,
    row_means: FloatArray,
    scores: dict[int, float],
    size_rule: tuple[int, float],
) -> tuple[int, str]:
    if tree[-1, 2] == 0:
        return 1, "all rows are equal"

    def verdict(number: int) -> Verdict:
        return worst_cluster(cuts(number), row_means, *size_rule)[1]

    verdicts = {number: verdict(number) for number in scores}
    for wanted in PREFERENCE:
        fitting = {k: score for k, score in scores.items() if verdicts[k] == wanted}
        if fitting:
            chosen = max(fitting, key=lambda k: (fitting[k], -k))
            how = f"by silhouette, {fitting[chosen]:.3f}"
            if fitting[chosen] < WEAK_SILHOUETTE:
                how += ": no substantial structure, the clusters may be noise"
            return chosen, how
    for number in range(2, len(row_means) + 1):
        if verdict(number) in PREFERENCE:
            return number, (
                "cut until the lowest cluster is small enough to be removed, since the "
                "silhouette allows no cut"
            )
    return 1, "no cut tells the train cases apart"


def _statement(
    labels: IntArray,
    row_means: FloatArray,
    worst: int | None,
    verdict: Verdict,
    how: str,
    size_rule: tuple[int, float],
) -> str:
    min_size, share = size_rule
    clusters = int(labels.max())
    if clusters == 1:
        nothing = not np.nan_to_num(row_means).any()
        why = (
            "every Dice is 0 or undefined, since no case has the region or no model "
            "finds it"
            if nothing
            else "the rows of the matrix do not differ, as if the fine-tunes had "
            "learnt nothing"
        )
        return f"One cluster: {why}. So nothing is worst, and no case can be removed."
    start = f"{clusters} clusters ({how})."
    limit = most_removable(len(labels), share)
    if verdict == "not comparable":
        return f"{start} Fewer than two of them have a defined Dice: none is the worst."
    if worst is None:
        return (
            f"{start} The lowest has more than the {limit} cases that "
            f"clusters.max_removed_share {share} allows to remove, so none is handed "
            "out: raise the share or the number of clusters."
        )
    members = labels == worst
    start += (
        f" Worst: cluster {worst}, {members.sum()} of {len(labels)} cases, mean Dice "
        f"{np.nanmean(row_means[members]):.3f} against "
        f"{np.nanmean(row_means[~members]):.3f} in the others."
    )
    if verdict == "beside smaller":
        return (
            f"{start} Smaller clusters are lower still, but clusters.min_size "
            f"{min_size} keeps them in: look at their cases."
        )
    if verdict == "too small":
        return (
            f"{start} It has fewer cases than clusters.min_size {min_size}, and is "
            "handed out all the same, since no larger cluster is both low and small "
            "enough."
        )
    return start
