"""How should the models of an ensemble be weighted? Several ways, on calibration cases.

    python -m benchmarks.weights --run FOLDER [FOLDER ...] [--output FILE]

Each FOLDER is a finished run of the workflow's similarity classifier, all of one cohort
(`benchmarks.adaptive` leaves one for each seed). All models segment its calibration
cases once more, and what is made of their softmax is compared by the label, on the
preprocessed grid. Predictions are those that were made out of fold, and no held-out
case is looked at: this is where `adaptive.temperature` was chosen.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks import setting as common
from benchmarks.shift import Run

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

ALL, KEPT = "all models alike", "all alike, without the worst cluster"
BY_MEAN, BY_LABEL = (
    "by the Dice predicted in the mean",
    "by that predicted in each label",
)
BY_RECORD = "by the row mean, for all cases alike"
KNOWN = "by the true Dice in each label (impossible)"
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.1)


@dataclass(frozen=True)
class Case:
    """What is known of a case, models in the plan's order.

    Attributes:
        softmax: (model, class, a, b, c).
        reference: label map (a, b, c).
        predicted: region to Dice, (model,): `mean`, and each label by number.
        dice: each label's true Dice, likewise.
        record: mean Dice on the other calibration cases, (model,).
        kept: whether a model is outside the worst cluster, (model,).
    """

    softmax: npt.NDArray[np.float32]
    reference: npt.NDArray[np.integer]
    predicted: Mapping[str, Array]
    dice: Mapping[str, Array]
    record: Array
    kept: npt.NDArray[np.bool_]


def ways(case: Case, labels: Sequence[str]) -> dict[str, Array]:
    """Weights of the models in each class, (class, model), by the name of each way."""
    n_classes = 1 + len(labels)

    def everywhere(weights: Array) -> Array:
        return np.broadcast_to(weights, (n_classes, len(weights)))

    def in_labels(dice: Mapping[str, Array], temperature: float) -> Array:
        each = np.array([softmax(dice[label], temperature) for label in labels])
        return np.vstack([each.mean(axis=0), each])

    found = {
        ALL: everywhere(np.full(len(case.kept), 1 / len(case.kept))),
        KEPT: everywhere(case.kept / case.kept.sum()),
    }
    for t in TEMPERATURES:
        found[f"{BY_MEAN}, {t:g}"] = everywhere(softmax(case.predicted["mean"], t))
        found[f"{BY_LABEL}, {t:g}"] = in_labels(case.predicted, t)
    for t in (0.02, 0.05):
        found[f"{BY_RECORD}, {t:g}"] = everywhere(softmax(case.record, t))
    return found | {f"{KNOWN}, 0.03": in_labels(case.dice, 0.03)}


def softmax(dice: Array, temperature: float) -> Array:
    """exp(Dice / temperature) over its sum; all alike where nothing is defined."""
    if np.isnan(dice).all():
        return np.full(len(dice), 1 / len(dice))
    weights = np.nan_to_num(np.exp((dice - np.nanmax(dice)) / temperature))
    found: Array = weights / weights.sum()
    return found


def mean_dice(
    label_map: npt.NDArray[np.integer],
    reference: npt.NDArray[np.integer],
    n_labels: int,
) -> float:
    """Mean over labels, undefined ones left out."""
    from casesim.inference import overlap

    labels = {str(number): [number] for number in range(1, n_labels + 1)}
    counts = overlap.count(label_map, reference, labels).values()
    dice = [overlap.dice(of["tp"], of["fp"], of["fn"]) for of in counts]
    return float(np.nanmean(dice)) if not np.isnan(dice).all() else float("nan")


def look(run: Run) -> Iterator[tuple[str, Case]]:
    """All calibration cases of a run, as all models see them."""
    import torch

    from casesim.adaptive import table
    from casesim.inference import sliding_window
    from casesim.nnunet.preprocessing import load_preprocessed

    models, options = run.plan.candidates, run.study.logit_options
    labels = run.study.cohort.foreground_labels
    setting = common.Setting(run.folder, 1)
    predicted = table.read([run.path("out_of_fold.tsv")])
    means = predicted[predicted["region"] == "mean"]
    path = run.folder / "results/pruning/worst_cluster/removed_cases.txt"
    removed = {f"finetuned/{case}" for case in path.read_text().split()}
    for case in run.plan.calibration:
        data, seg, _ = load_preprocessed(setting.stem(case), with_seg=True)
        assert seg is not None
        seen = [
            torch.softmax(
                sliding_window.predict_logits(run.models[name], data, **options), 0
            )
            for name in models
        ]
        own = predicted[predicted["case"] == case].set_index(["region", "model"])
        others = means[means["case"] != case].groupby("model")["dice"].mean()
        yield (
            case,
            Case(
                softmax=torch.stack(seen).cpu().numpy(),
                reference=np.maximum(seg[0], 0),
                predicted={
                    region: own["predicted_dice"][region][models].to_numpy(dtype=float)
                    for region in ["mean", *labels]
                },
                dice={
                    label: own["dice"][label][models].to_numpy(dtype=float)
                    for label in labels
                },
                record=others[models].to_numpy(dtype=float),
                kept=np.array([name not in removed for name in models]),
            ),
        )


def compare(run: Run) -> "pd.DataFrame":
    """Dice of each way on each case: `case, way, dice`."""
    import pandas as pd

    labels = run.study.cohort.foreground_labels
    rows = []
    for name, case in look(run):
        for way, weights in ways(case, labels).items():
            found = np.einsum("cm,mc...->c...", weights, case.softmax).argmax(axis=0)
            dice = mean_dice(found, case.reference, len(labels))
            rows.append({"case": name, "way": way, "dice": dice})
    return pd.DataFrame(rows)


def report(tables: Mapping[str, "pd.DataFrame"]) -> str:
    """Mean Dice of each way, and the change against leaving out the worst cluster, with
    95 % intervals over cases (means over runs)."""
    import pandas as pd

    from casesim.pruning.statistics import bootstrap_interval

    every = pd.concat([table.assign(run=name) for name, table in tables.items()])
    wide = every.pivot(index=["run", "case"], columns="way", values="dice")
    lines = []
    for way in dict.fromkeys(every["way"]):
        change = wide[way] - wide[KEPT]
        by_case = change.groupby("case").mean().to_numpy()
        low, high = bootstrap_interval(by_case[np.newaxis], seed=0)
        by_run = change.groupby("run").mean()[list(tables)]
        interval = f"[{low:+.4f}, {high:+.4f}]" if way != KEPT else ""
        lines.append(
            [
                way,
                f"{wide[way].mean():.4f}",
                f"{np.nanmean(by_case):+.4f} {interval}",
                ", ".join(f"{value:+.4f}" for value in by_run),
            ]
        )
    head = (
        f"Runs: {len(tables)}; {every['case'].nunique()} calibration cases, predicted "
        "out of fold. Numbers behind the ways: temperatures."
    )
    header = [
        "models are weighted",
        "mean Dice",
        "against leaving out the worst",
        "by run",
    ]
    return f"{head}\n\n{common.table(header, lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    tables = {str(path): compare(Run(path.absolute())) for path in arguments.run}
    common.publish(
        "Weights of the ensemble",
        report(tables),
        arguments.output,
        ("torch", "nnunetv2", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
