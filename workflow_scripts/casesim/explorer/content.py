"""What the page tells of a run beside its images: matrix, tree, cases, arms, stability.

All of it is read from the tables of the other stages. Arrays go as float32 in base64.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.explorer import budget
from casesim.inference import overlap
from casesim.similarity.clustering import read_clusters
from casesim.similarity.matrix import read_matrix, read_text
from casesim.similarity.tree import column_order, read_linkage

# The tables of `study` that are one file each.
TABLES = (
    "matrix",
    "undefined",
    "linkage",
    "leaf_order",
    "clusters",
    "clustering",
    "cases",
    "stability",
    "stability_summary",
    "summary",
    "cohort",
)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file: by the matrix's, decisions say what they were made on."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def run_id(results: str | os.PathLike[str], matrix_digest: str) -> str:
    """A name for one run, by which a browser keeps its marks apart from another's.

    Browsers share what is stored among all pages from a disk, wherever they lie. The
    folder tells two runs with the same matrix apart, the digest two runs in one folder.
    """
    text = f"{Path(results).resolve()}\n{matrix_digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _viridis() -> str:
    """The colours of the matrix, 256 of red, green and blue, as in the figures."""
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    return base64.b64encode(colours.tobytes()).decode("ascii")


def _packed(values: npt.ArrayLike) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


def _table(path: str | Path) -> dict[str, Any]:
    """A table as columns and rows, numbers as numbers and empty fields as null.

    Columns are not named here: a stage that adds one has it shown.
    """
    text = read_text(path)
    rows = [
        [value if i == 0 or name == "case" else _value(value) for i, (name, value) in e]
        for e in (
            enumerate(zip(text.columns, row, strict=True)) for row in text.to_numpy()
        )
    ]
    return {"columns": text.columns.tolist(), "rows": rows}


def _value(text: str) -> str | float | bool | None:
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if np.isfinite(number) else None


def matrices(
    paths: Mapping[str, str], rows: Sequence[str], columns: Sequence[str]
) -> dict[str, str]:
    """Region to matrix, (rows, columns) in the order of the page."""
    return {
        region: _packed(read_matrix(path).loc[list(rows), list(columns)])
        for region, path in paths.items()
    }


def tree(
    linkage: npt.NDArray[np.float64], order: Sequence[int]
) -> list[tuple[int, int, float]]:
    """Merges `(left, right, distance)`, leaves by their place on the page.

    Args:
        linkage: (cases - 1, 4), as scipy's.
        order: leaves in the order in which they are shown.
    """
    n = len(linkage) + 1
    place = {int(leaf): at for at, leaf in enumerate(order)}
    return [
        (
            place.get(int(left), int(left)) if left < n else int(left),
            place.get(int(right), int(right)) if right < n else int(right),
            float(distance),
        )
        for left, right, distance, _ in linkage
    ]


def scores(
    tables: Sequence[str], models: Sequence[str], cases: Sequence[str], regions: Any
) -> str:
    """Dice (model, region, case) of models that segmented all test cases."""
    if not models:
        return ""
    table = pd.concat([overlap.read_table(path) for path in tables])
    wide = table.set_index(["model", "region", "case"])["dice"]
    index = pd.MultiIndex.from_product([models, list(regions), cases])
    return _packed(wide.reindex(index))


def _scans_of_patients(cohort: pd.DataFrame) -> dict[str, str]:
    """Patient of the cases that share one with another case."""
    several = cohort[cohort["patient"].duplicated(keep=False)]
    return dict(zip(several["case"], several["patient"], strict=True))


def study(
    files: Mapping[str, Any],
    options: Mapping[str, Any],
    contents: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """All that the page knows before a case is opened.

    Args:
        files: path of each of `TABLES` (`matrix` is the one that was clustered),
            `matrices` (region to path), and `scores` (a list, as `options["models"]`).
        options: `results` (folder), `raw` (nnU-Net's folder of the cases), `channels`
            (names), `shown` (numbers of those in the page), `labels` (name to number),
            `ignore` (number of what nobody labelled, or None),
            `regions` (name to numbers), `region` (that was clustered), `models` (those
            that segmented all test cases, each with its `arm`, `seed` and the model
            that it is compared with, `before`; no arm for full models), `max_mb`.
        contents: case to what was left out of its files (see `pack.pack_case`).
    """
    clusters = read_clusters(files["clusters"]).set_index("case")
    leaf_order = read_text(files["leaf_order"])
    rows = leaf_order["case"].tolist()
    leaves = leaf_order["leaf"].astype(int).tolist()
    matrix = read_matrix(files["matrix"])
    columns = column_order(matrix, rows)
    cohort = read_text(files["cohort"])
    # Of the others, there is nothing to show.
    cohort = cohort[cohort["role"].isin(["pool", "held_out"])]
    regions = list(files["matrices"])
    cases = _table(files["cases"])
    review = [row[cases["columns"].index("case")] for row in cases["rows"]]
    matrix_digest = digest(files["matrix"])
    tests = cohort["case"].tolist()
    clustered = json.loads(Path(files["clustering"]).read_text(encoding="utf-8"))
    stable = json.loads(Path(files["stability_summary"]).read_text(encoding="utf-8"))
    results = Path(options["results"]).resolve()
    return {
        "run": run_id(results, matrix_digest),
        "digest": matrix_digest,
        "results": str(results),
        "raw": str(Path(options["raw"]).resolve()),
        "labels": dict(options["labels"]),
        "ignore": options["ignore"],
        "unions": {name: list(members) for name, members in options["regions"].items()},
        "channels": [options["channels"][number] for number in options["shown"]],
        "channel_numbers": list(options["shown"]),
        "all_channels": len(options["channels"]),
        "regions": regions,
        "region": options["region"],
        "rows": rows,
        "columns": columns,
        "matrices": matrices(files["matrices"], rows, columns),
        "undefined": _packed(read_matrix(files["undefined"]).loc[rows, columns]),
        "tree": tree(read_linkage(files["linkage"]), leaves),
        "cut": clustered["cut_distance"],
        "clustering": clustered["statement"],
        "clusters": [int(number) for number in clusters.loc[rows, "cluster"]],
        "worst": [bool(worst) for worst in clusters.loc[rows, "worst"]],
        "row_means": _packed(clusters.loc[rows, "row_mean"]),
        "cases": cases,
        "review": budget.review_first(review),
        "tests": tests,
        "patients": _scans_of_patients(cohort),
        "held_out": cohort.loc[cohort["role"] == "held_out", "case"].tolist(),
        "models": [{"name": name, **m} for name, m in options["models"].items()],
        "scores": scores(files["scores"], list(options["models"]), tests, regions),
        "stability": {**_table(files["stability"]), "statement": stable["statement"]},
        "summary": json.loads(Path(files["summary"]).read_text(encoding="utf-8")),
        "viridis": _viridis(),
        "served": False,
        "max_mb": options["max_mb"],
        "bytes": sum(content["bytes"] for content in contents.values()),
        "left_out": {
            case: {key: content[key] for key in ("channels", "models", "missing")}
            for case, content in contents.items()
            if content["channels"] or content["models"] or content["missing"]
        },
    }
