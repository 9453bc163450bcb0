"""Tables, volumes and pictures that the tests of the figures share."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from casesim.report import comparison, dendrogram, heatmap
from casesim.similarity.clustering import cluster

LABELS = {"edema": 1, "non-enhancing_tumor": 2, "enhancing_tumour": 3}


def simulate(
    train: int, test: int, low: tuple[int, ...], prefix: str = "case_"
) -> pd.DataFrame:
    random = np.random.default_rng(train)
    level = random.uniform(0.7, 0.78, train)
    level[list(low)] = 0.25
    values = level[:, None] + random.normal(0, 0.04, (train, test))
    values[range(train), range(train)] = 0.93
    names = [f"{prefix}{i:03d}" for i in range(test)]
    return pd.DataFrame(values.clip(0, 1), index=names[:train], columns=names)


def draw_heatmap(matrix: pd.DataFrame, folder: Path, **options: Any) -> Figure:
    result = cluster(matrix, bootstraps=2)
    return heatmap.draw(
        matrix,
        result.linkage.to_numpy(float),
        result.clusters,
        folder / "heatmap.png",
        folder / "heatmap.svg",
        **options,
    )


def draw_dendrogram(matrix: pd.DataFrame, folder: Path) -> Figure:
    result = cluster(matrix, bootstraps=20)
    return dendrogram.draw(
        result.linkage.to_numpy(float),
        result.clusters,
        folder / "dendrogram.png",
        folder / "dendrogram.svg",
        cut_distance=result.summary["cut_distance"],
        support=result.summary["support"],
    )


def assert_nothing_clipped(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def tick_labels(axes: Axes, which: str) -> list[Text]:
    axis = axes.xaxis if which == "x" else axes.yaxis
    return [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]


def assert_apart(texts: list[Text]) -> None:
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        # Touching within half a pixel is no overlap.
        inner = Bbox.from_extents(
            box.x0 + 0.5, box.y0 + 0.5, box.x1 - 0.5, box.y1 - 0.5
        )
        for other in boxes[i + 1 :]:
            assert not inner.overlaps(other)


def arms(
    pool: int, held_out: int, names: list[str], seeds: tuple[int, ...] = (0,)
) -> pd.DataFrame:
    random = np.random.default_rng(7)
    rows = []
    for i in range(pool + held_out):
        before = random.uniform(0.5, 0.9)
        for arm, name in enumerate(names):
            removed = i in (arm, arm + 1) and i < pool
            for seed in seeds:
                after = before + random.normal(0, 0.02) - 0.2 * removed
                rows.append(
                    {
                        "arm": name,
                        "seed": seed,
                        "case": f"case_{i:03d}",
                        "role": "pool" if i < pool else "held_out",
                        "removed": removed,
                        "region": "mean",
                        "dice_before": before,
                        "dice_after": after,
                        "delta": after - before,
                    }
                )
    return pd.DataFrame(rows)


def draw_comparison(table: pd.DataFrame, folder: Path, **options: Any) -> Figure:
    return comparison.draw(
        table, folder / "comparison.png", folder / "comparison.svg", **options
    )


def volumes() -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.mgrid[:10, :40, :36]
    head = (y - 20) ** 2 / 324 + (x - 18) ** 2 / 256 < 1
    label = ((y - 16) ** 2 + (x - 22) ** 2 + (z - 5) ** 2 < 30).astype(int)
    label += (y - 16) ** 2 + (x - 22) ** 2 + (z - 5) ** 2 < 12
    return head * 100.0 + label * 40, label
