"""From the matrix to its clusters: all that the rule `cluster` writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from casesim.similarity.cut import cut, most_removable
from casesim.similarity.distances import distances
from casesim.similarity.matrix import read_text, row_statistics
from casesim.similarity.tree import (
    cluster_support,
    cophenetic_correlation,
    cut_distance,
    leaf_order,
    linkage_table,
    upgma,
)


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
    patients: Mapping[str, str] | None = None,
) -> Clustering:
    """Cluster the train cases and name the worst cluster.

    Rows are sorted by case id first, so that leaf i of the linkage is row i of the
    `clusters` table. Row means leave the row's own patient out: `patients` is as in
    `matrix.own_cells`.

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
    statistics = row_statistics(matrix, patients)
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


def read_clusters(path: Path | str) -> pd.DataFrame:
    """`clusters.tsv` with case ids as text and `worst` as bool."""
    table = read_text(path)
    means = table[["row_mean", "row_max"]].replace("", "nan").astype(float)
    return table.assign(
        cluster=table["cluster"].astype(int),
        row_mean=means["row_mean"],
        row_max=means["row_max"],
        worst=table["worst"].str.lower() == "true",
    )
