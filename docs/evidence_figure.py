"""Draw the figure of docs/evidence.md, quality against cost, from measured tables.

    python docs/evidence_figure.py "Synthetic cohorts=FOLDER" "Real patients=FOLDER"

Each FOLDER is one that `benchmarks.evidence` worked in: its `kinds.tsv` and
`scores.tsv` are read. A column for each.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "workflow_scripts"))

from casesim.report import style  # noqa: E402

# Score: name in the figure, colour, marker. One for each price and idea.
SCORES = {
    "base_dice": ("base Dice", style.GREY, "o"),
    "base_signature": ("base signature", style.SKY, "s"),
    "cleanlab": ("cleanlab", style.PURPLE, "D"),
    "quick_combined": ("combined, quick look", style.GREEN, "^"),
    "row_mean": ("row mean", style.ORANGE, "o"),
    "signature": ("signature of the matrix", style.BLUE, "s"),
    "combined": ("combined", "#333333", "^"),
}
GRADES = {"gross": (style.BLUE, "o"), "moderate": (style.ORANGE, "s")}
COSTS_OF_LOOKS = {"base model": "base_signature", "matrix": "row_mean"}


def draw_scores(axes: Axes, scores: pd.DataFrame) -> None:
    """AUROC of any label error against cost: a point for each score."""
    rows = scores[(scores["defect"] == "label") & (scores["kind"] == "any")]
    several = rows["seed"].nunique() > 1
    groups = [(n, rows[rows["score"] == n]) for n in SCORES if n in set(rows["score"])]
    taken: dict[float, int] = {}
    for name, part in groups:
        label, colour, marker = SCORES[name]
        cost = float(part["base_trainings"].mean())
        # Scores of the same price stand beside each other.
        place = taken.get(round(cost, 2), 0)
        taken[round(cost, 2)] = place + 1
        x = cost + 0.13 * place
        mean = part["auroc"].mean()
        low = part["auroc"].min() if several else part["auroc_low"].iloc[0]
        high = part["auroc"].max() if several else part["auroc_high"].iloc[0]
        axes.plot([x, x], [low, high], color=colour, linewidth=1.6, zorder=2)
        axes.plot(x, mean, marker, color=colour, markersize=8, label=label, zorder=3)
    axes.axhline(0.5, color="#333333", linewidth=0.9, linestyle=":")
    axes.set_ylim(0.4, 1.02)
    axes.set_ylabel("AUROC, any label error")


def draw_kinds(axes: Axes, kinds: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Share of defects that get their right kind against cost: a point for a look.

    Looks that models of a part of the pool judge are left to the table.
    """
    kinds = kinds[kinds["look"].isin(list(COSTS_OF_LOOKS))]
    costs = scores.groupby("score")["base_trainings"].mean()
    for name, (colour, marker) in GRADES.items():
        points = []
        for look, rows in kinds[kinds["grade"] == name].groupby("look", sort=False):
            shown = COSTS_OF_LOOKS[str(look)]
            share = float((rows["outcome"] == "right").mean())
            points.append((float(costs[shown]), share))
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, f"{marker}-", color=colour, markersize=8, label=name)
    accused = kinds[kinds["grade"].isin(["sound", "control"])]
    points = [
        (float(costs[COSTS_OF_LOOKS[str(look)]]), float(rows["accused"].mean()))
        for look, rows in accused.groupby("look", sort=False)
    ]
    x, y = zip(*sorted(points), strict=True)
    axes.plot(x, y, "x--", color=style.VERMILION, label="sound or control, accused")
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("share of cases")


def draw(studies: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """A column for each study: title to `kinds.tsv` and `scores.tsv`."""
    figure = plt.figure(figsize=(5.2 * len(studies) + 2.4, 7.6), layout="constrained")
    panels = figure.subplots(2, len(studies), squeeze=False, sharex="col")
    for column, (title, (kinds, scores)) in enumerate(studies.items()):
        draw_scores(panels[0][column], scores)
        draw_kinds(panels[1][column], kinds, scores)
        panels[0][column].set_title(title, loc="left", weight="bold")
        panels[1][column].set_xlabel("cost beside the base model (trainings of it)")
        for axes in panels[:, column]:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#E8E8E8", zorder=0)
    for row, title in ((0, "finds the error"), (1, "names the right kind")):
        handles, labels = panels[row][0].get_legend_handles_labels()
        panels[row][-1].legend(
            handles, labels, title=title, loc="center left", bbox_to_anchor=(1.02, 0.5)
        )
    return figure


def main() -> None:
    studies = {}
    for argument in sys.argv[1:]:
        title, _, folder = argument.partition("=")
        kinds, scores = (
            pd.read_csv(Path(folder, name), sep="\t", keep_default_na=True)
            for name in ("kinds.tsv", "scores.tsv")
        )
        studies[title] = kinds, scores
    figure = draw(studies)
    figure.savefig(HERE / "images/evidence_cost.png", dpi=80)


if __name__ == "__main__":
    main()
