"""The tree of the train cases: distances, UPGMA, the cut, the worst cluster, and how to
read a single case.

Everything here works on one similarity matrix: row = the model fine-tuned on that train
case (donor), column = the case it was evaluated on (recipient), value = Dice, NaN where
Dice is undefined. Its columns are pool cases; held-out cases never enter.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import cophenet, fcluster, leaves_list, linkage
from scipy.spatial.distance import pdist, squareform

from casesim.errors import UserError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

METRICS = ("euclidean", "correlation", "dice")
MOST_CLUSTERS = 10  # silhouette is looked at for 2 .. MOST_CLUSTERS clusters
# Kaufman & Rousseeuw, Finding Groups in Data (1990), table 4.
WEAK_SILHOUETTE = 0.25

# A case stands out when its effect is this many robust standard deviations below the
# usual one (Leys et al., J. Exp. Soc. Psychol. 49:764, 2013), and also by an amount of
# Dice that matters to a reader.
OUTLYING_Z = -2.5
OUTLYING_DICE = -0.05

FINE = "fine"
WRONG_LABEL = "wrong label?"
BAD_IMAGE = "bad image or grossly wrong label?"
RARE = "rare but right?"


def read_matrix(path: Path | str) -> pd.DataFrame:
    """Read a matrix table: case ids as text, Dice as float, empty cells as NaN.

    Raises:
        UserError: a cell is no number.
    """
    text = _read_text(path)
    text = text.set_index(text.columns[0]).rename_axis(None)
    try:
        return text.replace("", "nan").astype(float)
    except ValueError as error:
        raise UserError(
            f"{path} holds a cell that is no number ({error}). "
            "Delete the file and run the workflow again."
        ) from None


def _read_text(path: Path | str) -> pd.DataFrame:
    # As text first: pandas would take the case id "NA" for missing and "001" for 1.
    return pd.read_csv(path, sep="\t", dtype=str, na_filter=False)


def without_diagonal(matrix: pd.DataFrame) -> pd.DataFrame:
    """Copy `matrix` with NaN where a model meets its own train case.

    A model's Dice on the case it was fine-tuned on says nothing about the others.
    """
    own = matrix.index.to_numpy()[:, None] == matrix.columns.to_numpy()[None, :]
    return matrix.mask(own)


def row_statistics(matrix: pd.DataFrame) -> pd.DataFrame:
    """Mean and maximum of each row, diagonal and NaN left out.

    Returns:
        Indexed by case, columns `row_mean` and `row_max`.
    """
    others = without_diagonal(matrix)
    return pd.DataFrame(
        {"row_mean": others.mean(axis=1), "row_max": others.max(axis=1)}
    )


def distances(matrix: pd.DataFrame, metric: str = "euclidean") -> FloatArray:
    """Distances between train cases.

    `euclidean`: between whole rows, diagonal included, as `scipy`'s `pdist` and as
        seaborn's `clustermap` does by default. With NaN: over the columns defined in
        both rows, scaled by sqrt(columns / common columns), as scikit-learn's
        `nan_euclidean_distances`.
    `correlation`: 1 - Pearson correlation over the columns defined in both rows. A
        constant row correlates with nothing (distance 1), and two constant rows have
        the same pattern (distance 0).
    `dice`: 1 - (S_ij + S_ji) / 2 on the square block of train cases; where only one of
        the two directions is defined, that one alone.

    Args:
        matrix: (train cases, pool cases), Dice.
        metric: one of `METRICS`.

    Returns:
        Condensed distances as from `pdist`, in row order; NaN where undefined (rows
        without a common column, for `correlation` without two).

    Raises:
        UserError: fewer than two rows, or no square block for `dice`.
    """
    if len(matrix) < 2:
        raise UserError(
            "Clustering needs at least two train cases. Raise cohort.train_cases."
        )
    if metric == "dice":
        return _dice_distances(matrix)
    return _profile_distances(matrix.to_numpy(float), metric)


def _profile_distances(rows: FloatArray, metric: str) -> FloatArray:
    if metric == "euclidean":
        return (
            _nan_euclidean(rows) if np.isnan(rows).any() else pdist(rows, "euclidean")
        )
    if metric == "correlation":
        return _correlation_distances(rows)
    raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")


def _nan_euclidean(rows: FloatArray) -> FloatArray:
    # From differences, not from dot products as scikit-learn: there equal rows can be
    # 1e-8 apart, which would break ties by rounding.
    columns = rows.shape[1]
    parts = []
    for i in range(len(rows) - 1):
        squares = (rows[i + 1 :] - rows[i]) ** 2
        common = (~np.isnan(squares)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(np.sqrt(np.nansum(squares, axis=1) * (columns / common)))
    return np.concatenate(parts)


def _correlation_distances(rows: FloatArray) -> FloatArray:
    correlation = pd.DataFrame(rows.T).corr(min_periods=2).to_numpy()
    first, second = np.triu_indices(len(rows), 1)
    condensed = 1 - correlation[first, second]
    for pair in np.flatnonzero(np.isnan(condensed)):
        a, b = rows[first[pair]], rows[second[pair]]
        common = ~np.isnan(a) & ~np.isnan(b)
        if common.sum() >= 2:
            both_constant = np.ptp(a[common]) == 0 and np.ptp(b[common]) == 0
            condensed[pair] = 0.0 if both_constant else 1.0
    return condensed


def _dice_distances(matrix: pd.DataFrame) -> FloatArray:
    missing = sorted(set(matrix.index) - set(matrix.columns))
    if missing:
        raise UserError(
            "similarity.distance: dice compares train cases with each other, but the "
            f"matrix has no column for {', '.join(missing)}. "
            "Use euclidean or correlation, or evaluate every train case."
        )
    square = matrix.loc[:, matrix.index].to_numpy(float)
    first, second = np.triu_indices(len(square), 1)
    there, back = square[first, second], square[second, first]
    similarity = np.where(
        np.isnan(there), back, np.where(np.isnan(back), there, (there + back) / 2)
    )
    return 1 - similarity


def fill_undefined(condensed: FloatArray) -> FloatArray:
    """Replace undefined distances by the largest defined one.

    Cases of which nothing common is known are so joined last, never called alike.

    Raises:
        UserError: no distance is defined.
    """
    undefined = np.isnan(condensed)
    if undefined.all():
        raise UserError(
            "No two train cases can be compared: the region of similarity.region is in "
            "too few cases. Choose another similarity.region, or mean."
        )
    return np.where(undefined, np.nanmax(condensed), condensed)


def upgma(condensed: FloatArray) -> FloatArray:
    """Tree by UPGMA (Sokal & Michener 1958; scipy's `linkage(..., 'average')`).

    Ties are broken by the order of the rows, so rows sorted by case id give one tree
    whatever order files came in.

    Returns:
        (cases - 1, 4) linkage: left, right, distance, size.
    """
    return linkage(fill_undefined(condensed), "average")


def leaf_order(tree: FloatArray) -> IntArray:
    """Rows in the order of the leaves."""
    return leaves_list(tree).astype(np.int64)


def cut_at(tree: FloatArray, number: int) -> IntArray:
    """Cluster of each row when the tree is cut into `number` clusters.

    Clusters are numbered from 1 in leaf order. Where merges tie there may be fewer.
    """
    labels = fcluster(tree, number, "maxclust")
    names = pd.unique(labels[leaf_order(tree)])
    number_of = {name: i for i, name in enumerate(names, start=1)}
    return np.array([number_of[name] for name in labels], dtype=np.int64)


def cut_distance(tree: FloatArray, number: int) -> float:
    """Height halfway between the last merge below and the first above the cut."""
    heights = np.concatenate([[0.0], tree[:, 2], [tree[-1, 2] * 1.1]])
    merged = len(tree) + 1 - number
    return float((heights[merged] + heights[merged + 1]) / 2)


def silhouettes(
    tree: FloatArray, condensed: FloatArray, most: int = MOST_CLUSTERS
) -> dict[int, float]:
    """Mean silhouette (Rousseeuw 1987) for 2 to min(most, cases - 1) clusters.

    Numbers that tied merges make impossible are left out.
    """
    from sklearn.metrics import silhouette_score

    square = squareform(fill_undefined(condensed))
    result = {}
    for number in range(2, min(most, len(square) - 1) + 1):
        labels = cut_at(tree, number)
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
        row_means: mean Dice of each row, diagonal left out; NaN rows are left out.

    Returns:
        The cluster's number (None where none may be removed), and the verdict.
    """
    largest = most_removable(len(labels), max_removed_share)
    means = pd.Series(row_means).groupby(np.asarray(labels)).mean().dropna()
    sizes = pd.Series(labels).value_counts()
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
    scores = silhouettes(tree, condensed)
    if number == "auto":
        chosen, how = _choose_number(tree, row_means, scores, size_rule)
    else:
        if number > cases:
            raise UserError(
                f"clusters.number is {number}, but there are {cases} train cases. "
                "Lower it, or set it to auto."
            )
        chosen, how = number, "as clusters.number says"
    labels = cut_at(tree, chosen)
    worst, verdict = worst_cluster(labels, row_means, *size_rule)
    return Cut(
        labels=labels,
        worst=worst,
        silhouettes=scores,
        statement=_statement(labels, row_means, worst, verdict, how, size_rule),
    )


def _choose_number(
    tree: FloatArray,
    row_means: FloatArray,
    scores: dict[int, float],
    size_rule: tuple[int, float],
) -> tuple[int, str]:
    if tree[-1, 2] == 0:
        return 1, "all rows are equal"

    def verdict(number: int) -> Verdict:
        return worst_cluster(cut_at(tree, number), row_means, *size_rule)[1]

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
        return (
            "One cluster: the rows of the matrix do not differ, so nothing can be "
            "called worst. No case can be removed."
        )
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


@dataclass(frozen=True)
class Clustering:
    """All that the `cluster` rule writes."""

    linkage: pd.DataFrame
    leaf_order: pd.DataFrame
    clusters: pd.DataFrame
    summary: dict[str, Any]


def cluster(
    matrix: pd.DataFrame,
    metric: str = "euclidean",
    number: int | Literal["auto"] = "auto",
    min_size: int = 2,
    max_removed_share: float = 0.3,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Clustering:
    """Cluster the train cases and name the worst cluster.

    Rows are sorted by case id first, so that leaf i of the linkage is row i of the
    `clusters` table.

    Returns:
        linkage: `left, right, distance, size`, as scipy's.
        leaf_order: `position, case, leaf` (leaf: the number used in the linkage).
        clusters: `case, cluster, row_mean, row_max, worst`.
        summary: what `clustering.json` holds.

    Raises:
        UserError: fewer than two rows, nothing comparable, or an impossible number.
    """
    matrix = matrix.sort_index()
    condensed = distances(matrix, metric)
    tree = upgma(condensed)
    statistics = row_statistics(matrix)
    means = statistics["row_mean"].to_numpy()
    chosen = cut(tree, condensed, means, number, min_size, max_removed_share)
    order = leaf_order(tree)
    cases = [str(case) for case in matrix.index]
    clusters = pd.DataFrame(
        {
            "case": cases,
            "cluster": chosen.labels,
            "row_mean": means,
            "row_max": statistics["row_max"].to_numpy(),
            "worst": chosen.labels == (chosen.worst or 0),
        }
    )
    support = cluster_support(matrix, metric, tree, bootstraps, seed)
    largest = most_removable(len(cases), max_removed_share)
    summary = {
        "metric": metric,
        "linkage": "average (UPGMA)",
        "cases": cases,
        "columns": matrix.shape[1],
        "undefined_cells": int(matrix.isna().to_numpy().sum()),
        "undefined_distances": int(np.isnan(condensed).sum()),
        "cophenetic_correlation": _json_number(cophenetic_correlation(tree, condensed)),
        "number_requested": number,
        "number": chosen.number,
        "silhouette": {str(k): round(v, 6) for k, v in chosen.silhouettes.items()},
        "cut_distance": cut_distance(tree, chosen.number),
        "min_size": min_size,
        "max_removed_share": max_removed_share,
        "most_removable": largest,
        "worst_cluster": chosen.worst,
        "worst_cases": clusters.loc[clusters["worst"], "case"].tolist(),
        "clusters": [
            {
                "cluster": name,
                "size": len(group),
                "mean_dice": _json_number(group["row_mean"].mean()),
                "removable": min_size <= len(group) <= largest,
            }
            for name in range(1, chosen.number + 1)
            for group in [clusters[clusters["cluster"] == name]]
        ],
        "bootstraps": bootstraps,
        "support": [_json_number(share) for share in support],
        "statement": chosen.statement,
    }
    return Clustering(
        linkage=linkage_table(tree),
        leaf_order=pd.DataFrame(
            {
                "position": np.arange(1, len(cases) + 1),
                "case": [cases[leaf] for leaf in order],
                "leaf": order,
            }
        ),
        clusters=clusters,
        summary=summary,
    )


def _json_number(value: float) -> float | None:
    # JSON has no NaN.
    return float(value) if np.isfinite(value) else None


def linkage_table(tree: FloatArray) -> pd.DataFrame:
    """The linkage as `left, right, distance, size`."""
    table = pd.DataFrame(tree, columns=["left", "right", "distance", "size"])
    return table.astype({"left": int, "right": int, "size": int})


def read_linkage(path: Path | str) -> FloatArray:
    """The linkage that `linkage_table` wrote, as scipy takes it."""
    table = _read_text(path)
    return table[["left", "right", "distance", "size"]].astype(float).to_numpy()


def read_clusters(path: Path | str) -> pd.DataFrame:
    """`clusters.tsv` with case ids as text and `worst` as bool."""
    table = _read_text(path)
    means = table[["row_mean", "row_max"]].replace("", "nan").astype(float)
    return table.assign(
        cluster=table["cluster"].astype(int),
        row_mean=means["row_mean"],
        row_max=means["row_max"],
        worst=table["worst"].str.lower() == "true",
    )


def cophenetic_correlation(tree: FloatArray, condensed: FloatArray) -> float:
    """How well heights in the tree reproduce the distances; NaN if all are equal."""
    filled = fill_undefined(condensed)
    if np.ptp(filled) == 0:
        return math.nan
    return float(cophenet(tree, filled)[0])


def node_leaves(tree: FloatArray) -> list[frozenset[int]]:
    """The leaves under each merge, in the order of the linkage."""
    sets = [frozenset([leaf]) for leaf in range(len(tree) + 1)]
    for left, right in tree[:, :2].astype(int):
        sets.append(sets[left] | sets[right])
    return sets[len(tree) + 1 :]


def cluster_support(
    matrix: pd.DataFrame,
    metric: str,
    tree: FloatArray,
    bootstraps: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """Share of column-bootstrap trees in which each cluster of the tree survives.

    Felsenstein's bootstrap (Evolution 39:783, 1985) on the recipients: columns are
    drawn with replacement, the tree is built again, and a merge survives when some
    merge of the new tree joins exactly the same cases.

    Args:
        matrix: the matrix that `tree` was built from, rows in the same order.
        metric: with `dice`, which compares case with case and has no columns to draw,
            support is undefined: all NaN.

    Returns:
        (cases - 1,) in the order of the linkage; the last, the root, is 1.
    """
    if metric == "dice":
        return np.full(len(tree), np.nan)
    rows = matrix.to_numpy(float)
    nodes = node_leaves(tree)
    random = np.random.default_rng(seed)
    survived = np.zeros(len(nodes))
    for _ in range(bootstraps):
        drawn = rows[:, random.integers(rows.shape[1], size=rows.shape[1])]
        condensed = _profile_distances(drawn, metric)
        if np.isnan(condensed).all():
            continue
        found = set(node_leaves(upgma(condensed)))
        survived += [node in found for node in nodes]
    return survived / bootstraps


def median_polish(
    values: FloatArray, rounds: int = 100, tolerance: float = 1e-9
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """Two-way additive fit by Tukey's median polish (1977), NaN left out.

    values = overall + row + column + residual.

    Args:
        values: (rows, columns); every row and column that is wholly NaN gets effect
        NaN.
        rounds: at most so many sweeps of rows and columns.
        tolerance: ends when a sweep changes the sum of absolute residuals by less.

    Returns:
        overall, row effects, column effects (medians 0), residuals.
    """
    residual = np.array(values, dtype=float)
    row = np.zeros(residual.shape[0])
    column = np.zeros(residual.shape[1])
    empty_row = np.isnan(residual).all(axis=1)
    empty_column = np.isnan(residual).all(axis=0)
    before = math.inf
    for _ in range(rounds):
        step = np.zeros_like(row)
        step[~empty_row] = np.nanmedian(residual[~empty_row], axis=1)
        row += step
        residual -= step[:, None]
        step = np.zeros_like(column)
        step[~empty_column] = np.nanmedian(residual[:, ~empty_column], axis=0)
        column += step
        residual -= step[None, :]
        now = float(np.nansum(np.abs(residual)))
        if abs(before - now) <= tolerance:
            break
        before = now
    row[empty_row] = np.nan
    column[empty_column] = np.nan
    row_centre = float(np.nanmedian(row))
    column_centre = float(np.nanmedian(column))
    return (
        row_centre + column_centre,
        row - row_centre,
        column - column_centre,
        residual,
    )


def robust_z(values: FloatArray) -> FloatArray:
    """Distance from the median in units of 1.4826 MAD (Iglewicz & Hoaglin 1993).

    Where more than half of the values are equal the MAD is 0, and 1.2533 times the mean
    absolute deviation stands in; where all are equal, z is 0.
    """
    deviation = values - np.nanmedian(values)
    spread = 1.4826 * float(np.nanmedian(np.abs(deviation)))
    if spread == 0:
        spread = 1.2533 * float(np.nanmean(np.abs(deviation)))
    return deviation / spread if spread > 0 else np.where(np.isnan(values), np.nan, 0.0)


def case_effects(matrix: pd.DataFrame) -> pd.DataFrame:
    """What each train case does as donor (row) and as recipient (column), and why.

    Two-way fit by median polish on the matrix without its diagonal. An effect is low
    when its robust z is at most -2.5 and the effect itself at most -0.05 Dice. Then

    | row | column | word |
    |---|---|---|
    | low | usual | wrong label? |
    | low | low | bad image or grossly wrong label? |
    | usual | low | rare but right? |
    | usual | usual | fine |

    The second row names two reasons because columns are scored against the case's own
    label map: where that map is far off, sound models score low on it as well. Words
    are advice on what to review first, never a verdict.

    Returns:
        Ranked, the lowest donor effect first: `rank, case, donor_effect, donor_z,
        recipient_effect, recipient_z, residual` (median absolute residual of the row:
        how far its pattern departs from row plus column), `row_mean, row_max, word`.
    """
    matrix = matrix.sort_index()
    others = without_diagonal(matrix)
    _, donor, column, residual = median_polish(others.to_numpy(float))
    column_z = robust_z(column)
    position = {case: i for i, case in enumerate(matrix.columns)}
    own = np.array([position.get(case, -1) for case in matrix.index])
    recipient = np.where(own < 0, np.nan, column[own])
    recipient_z = np.where(own < 0, np.nan, column_z[own])
    donor_z = robust_z(donor)
    table = row_statistics(matrix).rename_axis("case").reset_index()
    table = table.assign(
        donor_effect=donor,
        donor_z=donor_z,
        recipient_effect=recipient,
        recipient_z=recipient_z,
        residual=pd.DataFrame(np.abs(residual)).median(axis=1).to_numpy(),
        word=_words(_is_low(donor, donor_z), _is_low(recipient, recipient_z)),
    )
    table = table.sort_values(["donor_effect", "case"], kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table[
        [
            "rank",
            "case",
            "donor_effect",
            "donor_z",
            "recipient_effect",
            "recipient_z",
            "residual",
            "row_mean",
            "row_max",
            "word",
        ]
    ].reset_index(drop=True)


def _is_low(effect: FloatArray, z: FloatArray) -> BoolArray:
    # A NaN effect compares as False: what is not known is not called low.
    return (z <= OUTLYING_Z) & (effect <= OUTLYING_DICE)


def _words(low_row: BoolArray, low_column: BoolArray) -> list[str]:
    words = {
        (True, False): WRONG_LABEL,
        (True, True): BAD_IMAGE,
        (False, True): RARE,
        (False, False): FINE,
    }
    return [
        words[bool(row), bool(column)]
        for row, column in zip(low_row, low_column, strict=True)
    ]
