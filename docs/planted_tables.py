"""Write the tables of docs/planted.md from a finished run, and copy its figures.

    python docs/planted_tables.py FOLDER/results [--trial FOLDER/results]

No number in the tables is typed in. Figures are copied at half their size. `--trial` is
the run with less gross errors that the page describes.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.image import imread, imsave

HERE = Path(__file__).parent
PAGE = HERE / "planted.md"
FIGURES = {
    "similarity/heatmap.png": "planted_heatmap.png",
    "similarity/effects.png": "planted_effects.png",
    "pruning/forest.png": "planted_forest.png",
    "evidence/detection.png": "planted_detection.png",
}
KINDS = {
    "label": (
        *("swapped_labels", "shifted_label", "other_patient"),
        *("over_segmentation", "missed_lesion"),
    ),
    "image": ("corrupted_channel",),
}


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def plain(name: object) -> str:
    return str(name).replace("_", " ")


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(part: Mapping[str, Any]) -> str:
    if part["interval_low"] is None:  # the training noise is unknown
        return "unknown"
    return f"{part['interval_low']:+.3f} to {part['interval_high']:+.3f}"


def detection(results: Path) -> str:
    table = read(results / "evidence/detection.tsv")
    table = table[table["kind"] == "any"]
    parts = []
    for kind, rows in table.groupby("defect", sort=False):
        first = rows.iloc[0]
        parts.append(
            f"{plain(kind).capitalize()} defects: {first['n_defects']} of "
            f"{first['n_cases']} cases, {first['n_controls']} of the others unusual "
            f"but right. In a random order the average precision would be "
            f"{float(first['prevalence']):.2f}.\n"
        )
        k = first["k"]
        head = ["score", "AUROC", "average precision", f"precision and recall at {k}"]
        head += [f"controls among the {k} most suspect", "controls above a defect"]
        parts.append(
            markdown(
                head,
                (
                    [
                        plain(row["score"]),
                        f"{float(row['auroc']):.3f}",
                        f"{float(row['average_precision']):.3f}",
                        f"{float(row['precision_at_k']):.2f}",
                        f"{float(row['controls_in_top_k']):.2g}",
                        row["controls_above"],
                    ]
                    for _, row in rows.iterrows()
                ),
            )
        )
        parts.append("")
    return "\n".join(parts).rstrip()


def detection_with_figure(results: Path) -> str:
    name = FIGURES["evidence/detection.png"]
    figure = f"![How well each score finds the planted defects](images/{name})"
    return f"{figure}\n\n{detection(results)}"


def cases(results: Path, planted_only: bool = False) -> str:
    planted = read(results / "cohort.tsv").set_index("case")["planted"]
    clusters = read(results / "similarity/clusters.tsv").set_index("case")
    base = read(results / "scores/base.tsv")
    base_dice = base[base["region"] == "mean"].set_index("case")["dice"]
    folder = results / "evidence/label_quality"
    head = ["rank", "case", "planted", "donor effect", "recipient effect", "row mean"]
    head += ["row maximum", "base Dice", "cluster", "kind", "strength"]
    if folder.is_dir():
        head.append("cleanlab")
    rows = []
    for _, row in read(results / "similarity/cases.tsv").iterrows():
        case = row["case"]
        if planted_only and not planted[case]:
            continue
        cells = [
            row["rank"],
            case,
            plain(planted[case]),
            f"{float(row['donor_effect']):+.3f}",
            f"{float(row['recipient_effect']):+.3f}",
            f"{float(row['row_mean']):.3f}",
            f"{float(row['row_max']):.3f}",
            f"{float(base_dice[case]):.3f}",
            "worst" if clusters["worst"][case] == "true" else "",
            row["kind"],
            f"{float(row['strength']):.1f}",
        ]
        if folder.is_dir():
            record = json.loads((folder / f"{case}.json").read_text())
            cells.append(f"{record['label_quality']:.4f}")
        rows.append(cells)
    return markdown(head, rows)


def trial(results: Path) -> str:
    return f"{detection(results)}\n\n{cases(results, planted_only=True)}"


def arms(results: Path) -> str:
    summary = json.loads((results / "pruning/summary.json").read_text())
    planted = read(results / "cohort.tsv").set_index("case")["planted"]
    rows = []
    for arm, content in summary["arms"].items():
        removed = planted[content["removed_cases"]]
        labels, images = (int(removed.isin(KINDS[kind]).sum()) for kind in KINDS)
        controls = int((removed != "").sum()) - labels - images
        held_out = content["regions"]["mean"]["held_out"]
        rows.append(
            [
                plain(arm),
                *(labels, images, controls, int((removed == "").sum())),
                f"{held_out['mean']:+.3f}",
                interval(held_out),
                f"{content['regions']['mean']['kept']['mean']:+.3f}",
                content.get("verdict", ""),
            ]
        )
    head = ["arm", "label defects removed", "image defects", "controls", "sound cases"]
    head += ["change of Dice, held out", "95 % interval", "kept pool cases", "verdict"]
    name = FIGURES["pruning/forest.png"]
    figure = f"![Change of Dice on held-out cases by arm](images/{name})"
    return f"{figure}\n\n{markdown(head, rows)}"


def contrasts(results: Path) -> str:
    summary = json.loads((results / "pruning/summary.json").read_text())
    return markdown(
        ["worst cluster minus", "change of Dice, held out", "95 % interval"],
        (
            [plain(arm), f"{part['mean']:+.3f}", interval(part)]
            for arm, part in summary["contrasts"].items()
        ),
    )


def verdict(results: Path) -> str:
    summary = json.loads((results / "pruning/summary.json").read_text())
    clustering = json.loads((results / "similarity/clustering.json").read_text())
    worst = summary["arms"]["worst_cluster"]["regions"]["mean"]["held_out"]
    detectable = worst["detectable"]  # null where the training noise is unknown
    sentences = [
        clustering["statement"],
        *(
            content["sentence"]
            for content in summary["arms"].values()
            if "sentence" in content
        ),
        "Smallest change of worst_cluster that this design finds with 80 % power: "
        + ("unknown." if detectable is None else f"{detectable:.3f}."),
    ]
    return "\n".join(f"> {line}\n>" for line in sentences).removesuffix("\n>")


BLOCKS = {
    "verdict": verdict,
    "detection": detection_with_figure,
    "arms": arms,
    "contrasts": contrasts,
    "cases": cases,
}


def fill(text: str, results: Path, blocks: Mapping[str, Any]) -> str:
    """The page with these blocks, from `<!-- NAME: start -->` to its end, made anew."""
    for name, block in blocks.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        before, rest = text.split(start)
        after = rest.split(end)[1]
        text = f"{before}{start}\n{block(results)}\n{end}{after}"
    return text


def copy_figures(results: Path) -> None:
    for source, name in FIGURES.items():
        pixels = imread(results / source)[..., :3]
        height, width = (size // 2 * 2 for size in pixels.shape[:2])
        # Means of two by two pixels.
        halved = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        imsave(HERE / "images" / name, halved.mean(axis=(1, 3)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--trial", type=Path)
    arguments = parser.parse_args()
    page = fill(PAGE.read_text(), arguments.results, BLOCKS)
    if arguments.trial:
        page = fill(page, arguments.trial, {"trial": trial})
    PAGE.write_text(page)
    copy_figures(arguments.results)
