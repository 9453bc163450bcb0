"""Rows of the matrix from fewer fine-tunes: can those left out be predicted?

    python -m benchmarks.landmarks --run FOLDER [FOLDER ...] [--share 0.2 0.4 0.6]
        [--draws 50] [--output FILE]
    python -m benchmarks.landmarks --study FOLDER --config config/planted.yaml
        [--seeds 0 1 2] [--width 16] [--minutes 9]

Each FOLDER of `--run` is a finished run of the workflow with a synthetic cohort; that
of `--study` holds a folder for each seed, as `benchmarks.evidence` leaves them: base
model, fine-tunes and rows that are not there yet are made, in one process of one
thread, and kept.

A share of the train cases are landmarks, drawn at random: their rows are known. The row
means of the others are predicted from what needs no fine-tune of them: the base's Dice
on the case, its confidence, the Dice of the landmarks' models on the case, and the
gradient of the base's training loss on it, whose dot product with that of another case
is what a small step on the one does to the loss of the other. Compared with the true
row means: rank correlation among the rows that were left out, among those of them that
are not in the worst cluster, and how well the predicted mean tells those that are.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import setting as common
from benchmarks import studies

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

BASE_DICE, GRADIENTS = "base's Dice on the case", "gradients"
CONFIDENCE, COLUMNS = "base's confidence", "Dice of the landmarks' models on the case"
ALL = "all of these"
TREES = 100


@dataclass(frozen=True)
class Known:
    """What is known of the train cases of a run.

    Attributes:
        matrix: (row, column), Dice, both train cases in one order.
        row_means: (row,), without the diagonal.
        worst: (row,), whether a row is in the worst cluster.
        clusters: (row,), number of the cluster.
        base: (case,), the base's Dice.
        confidence: (case, 3): expected Dice, entropy, log volume, means over labels.
        gradients: (case, parameter), of the base's loss on each case.
    """

    matrix: Array
    row_means: Array
    worst: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]
    base: Array
    confidence: Array
    gradients: Array

    @property
    def cosines(self) -> Array:
        """Of the angles between gradients, (case, case)."""
        length = np.linalg.norm(self.gradients, axis=1, keepdims=True)
        unit = self.gradients / np.where(length > 0, length, 1)
        found: Array = unit @ unit.T
        return found


def load(run: Path) -> Known:
    """A finished run of the workflow, its cases seen by its base model."""
    import pandas as pd

    from casesim.similarity.matrix import read_matrix

    clusters = pd.read_csv(
        run / "results/similarity/clusters.tsv", sep="\t", dtype={"case": str}
    )
    matrix = read_matrix(run / "results/similarity/matrix.tsv")
    return look(matrix, clusters, common.Setting(run, 1))


def load_study(run: studies.Run) -> Known:
    """Likewise a seed of a study, with the rows of `studies.rows_in_time`."""
    from casesim.similarity.clustering import cluster

    matrix, _, _ = studies.rows_of(run, studies.FULL)
    found = cluster(matrix, bootstraps=1, **run.study.config["clusters"])
    return look(matrix, found.clusters, run.setting)


def look(
    matrix: "pd.DataFrame", clusters: "pd.DataFrame", setting: common.Setting
) -> Known:
    """What is known of the rows of a matrix, its tree and the base model."""
    from casesim.nnunet import checkpoints
    from casesim.similarity.matrix import row_statistics

    cases = list(matrix.index)
    clusters = clusters.set_index("case")
    model = checkpoints.load_model(setting.checkpoint("base"), common.device())
    looked = [look_at(model, setting.stem(case)) for case in cases]
    return Known(
        matrix=matrix[cases].to_numpy(dtype=float),
        row_means=row_statistics(matrix)["row_mean"].loc[cases].to_numpy(dtype=float),
        worst=clusters["worst"].loc[cases].to_numpy(dtype=bool),
        clusters=clusters["cluster"].loc[cases].to_numpy(dtype=int),
        base=np.array([dice for dice, _, _ in looked]),
        confidence=np.array([said for _, said, _ in looked]),
        gradients=np.array([gradient for _, _, gradient in looked]),
    )


def look_at(model: Any, stem: Path) -> tuple[float, Array, Array]:
    """Dice (mean over labels, on the preprocessed grid), confidence and gradient of a
    model on one case."""
    from casesim.adaptive import confidence
    from casesim.inference import overlap, sliding_window
    from casesim.nnunet.preprocessing import load_preprocessed

    data, seg, _ = load_preprocessed(stem, with_seg=True)
    assert seg is not None
    logits = sliding_window.predict_logits(model, data, mirroring=False)
    labels = {str(label): [label] for label in range(1, len(logits))}
    said = confidence.from_logits(logits, labels)
    found = logits.argmax(0).cpu().numpy()
    reference = np.maximum(seg[0], 0)
    counts = overlap.count(found, reference, labels).values()
    dice = np.array([overlap.dice(of["tp"], of["fp"], of["fn"]) for of in counts])
    sizes = [int((found == number).sum()) for (number,) in labels.values()]
    means = [
        _mean(np.array([of[name] for of in said.values()]))
        for name in ("expected_dice", "entropy")
    ]
    volume = float(np.log1p(sizes).mean())
    return _mean(dice), np.array([*means, volume]), gradient_of(model, data, seg)


def gradient_of(model: Any, data: Any, seg: Any) -> Array:
    """Gradient of nnU-Net's loss (Dice and cross entropy) over the slices of a case
    that have a label, (parameter,)."""
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    image = torch.as_tensor(data, dtype=torch.float32).transpose(0, 1)
    target = torch.as_tensor(seg).transpose(0, 1).clamp(min=0)
    labelled = target.flatten(1).any(1)
    if bool(labelled.any()):
        image, target = image[labelled], target[labelled]
    patch = model.configuration_manager.patch_size
    padding: list[int] = []
    for size, least in zip(reversed(image.shape[2:]), reversed(patch), strict=True):
        # Sides of the patch can be halved as often as the network does.
        padding += [0, -size % least]
    image = torch.nn.functional.pad(image, padding)
    target = torch.nn.functional.pad(target, padding)
    loss_of = DC_and_CE_loss(
        {
            "batch_dice": model.configuration_manager.batch_dice,
            "smooth": 1e-5,
            "do_bg": False,
            "ddp": False,
        },
        {},
        weight_ce=1,
        weight_dice=1,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    # Those of a model that only predicts cannot be derived by; their copies can.
    weights = {
        name: value.clone().requires_grad_(True)
        for name, value in model.network.named_parameters()
    }
    device = next(iter(weights.values())).device
    logits = torch.func.functional_call(
        model.network, weights, (image.to(device).clone(),)
    )
    loss = loss_of(logits, target.to(device))
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    flat = torch.cat([part.flatten() for part in found if part is not None])
    return flat.cpu().numpy().astype(np.float64)


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def by_landmarks(known: Known, landmarks: Sequence[int]) -> Array:
    """Mean Dice of the landmarks' models on each case, (case,); a landmark's own model
    left out."""
    rows = known.matrix[landmarks].copy()
    rows[np.arange(len(landmarks)), landmarks] = np.nan
    return np.array([_mean(column) for column in rows.T])


def cells(known: Known, landmarks: Sequence[int]) -> Array:
    """What is known of each cell without the row's fine-tune, (row, column, 12)."""
    cosines = known.cosines
    of_case = np.column_stack(
        [known.base, by_landmarks(known, landmarks), known.confidence]
    )
    n = len(known.base)
    shape = (n, n, of_case.shape[1])
    aligned = cosines.mean(axis=1)
    return np.concatenate(
        [
            np.broadcast_to(of_case[:, None], shape),
            np.broadcast_to(of_case[None], shape),
            np.stack([cosines, np.broadcast_to(aligned[:, None], (n, n))], axis=2),
        ],
        axis=2,
    )


def predict_rows(known: Known, landmarks: Sequence[int], seed: int) -> Array:
    """The whole matrix as a forest predicts it from the landmarks' rows."""
    from sklearn.ensemble import ExtraTreesRegressor

    table = cells(known, landmarks)
    learnt = np.zeros(known.matrix.shape, bool)
    learnt[landmarks] = True
    np.fill_diagonal(learnt, False)
    learnt &= ~np.isnan(known.matrix)
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=3, random_state=seed)
    forest.fit(table[learnt], known.matrix[learnt])
    found: Array = forest.predict(table.reshape(-1, table.shape[2]))
    return found.reshape(known.matrix.shape)


def predictions(
    known: Known, landmarks: Sequence[int], seed: int
) -> tuple[dict[str, Array], Array]:
    """Predicted order of the row means by each method, (row,); and predicted rows."""
    from sklearn.ensemble import ExtraTreesRegressor

    rows = predict_rows(known, landmarks, seed)
    off = rows.copy()
    np.fill_diagonal(off, np.nan)
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=seed)
    forest.fit(known.confidence[landmarks], known.row_means[landmarks])
    aligned = known.cosines.copy()
    np.fill_diagonal(aligned, np.nan)
    return {
        BASE_DICE: known.base,
        GRADIENTS: np.nanmean(aligned, axis=1),
        CONFIDENCE: forest.predict(known.confidence),
        COLUMNS: by_landmarks(known, landmarks),
        ALL: np.nanmean(off, axis=1),
    }, rows


def judge(known: Known, landmarks: Sequence[int], seed: int) -> dict[str, Any]:
    """One draw: of each method the rank correlation among the rows left out (`rank`)
    and among those that are not in the worst cluster (`sound`), and the AUROC of the
    worst cluster (`worst`); `cluster`, the share of them that are given the right
    cluster, that of the landmark with the nearest row."""
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    rest = np.setdiff1d(np.arange(len(known.base)), landmarks)
    found, rows = predictions(known, landmarks, seed)
    worst = known.worst[rest]
    both = worst.any() and not worst.all()
    sound = rest[~worst]
    apart = np.nansum(
        (rows[rest][:, None] - known.matrix[landmarks][None]) ** 2, axis=2
    )
    given = known.clusters[np.asarray(landmarks)[apart.argmin(axis=1)]]
    return {
        "rank": {
            name: float(stats.spearmanr(values[rest], known.row_means[rest]).statistic)
            for name, values in found.items()
        },
        "sound": {
            name: float(
                stats.spearmanr(values[sound], known.row_means[sound]).statistic
            )
            for name, values in found.items()
        },
        "worst": {
            name: float(roc_auc_score(worst, -values[rest])) if both else math.nan
            for name, values in found.items()
        },
        "cluster": float((given == known.clusters[rest]).mean()),
    }


def study(
    runs: Mapping[str, Known], shares: Sequence[float], draws: int
) -> "pd.DataFrame":
    """Every draw: `run, share, draw, method, rank, sound, worst, cluster`."""
    import pandas as pd

    rows = []
    for name, known in runs.items():
        n = len(known.base)
        for share in shares:
            for draw in range(draws):
                generator = np.random.default_rng([draw, round(1000 * share)])
                # At most the share: 9 of 24 at 40 %.
                size = max(2, math.floor(share * n))
                landmarks = sorted(generator.choice(n, size, replace=False).tolist())
                found = judge(known, landmarks, draw)
                key = {"run": name, "share": share, "draw": draw}
                rows += [
                    {
                        **key,
                        "method": method,
                        "rank": found["rank"][method],
                        "sound": found["sound"][method],
                        "worst": found["worst"][method],
                        "cluster": found["cluster"] if method == ALL else math.nan,
                    }
                    for method in found["rank"]
                ]
    return pd.DataFrame(rows)


def report(table: "pd.DataFrame", runs: Mapping[str, Known]) -> str:
    """Median over draws with the range of their middle 90 %, for each share."""
    sections = []
    for share, of_share in table.groupby("share"):
        lines = []
        for method in (BASE_DICE, GRADIENTS, CONFIDENCE, COLUMNS, ALL):
            rows = of_share[of_share["method"] == method]
            by_run = rows.groupby("run")["rank"].median()
            lines.append(
                [
                    method,
                    _spread(rows["rank"]),
                    ", ".join(f"{by_run[name]:.2f}" for name in runs),
                    _spread(rows["sound"]),
                    _spread(rows["worst"]),
                    _spread(rows["cluster"]) if method == ALL else "",
                ]
            )
        header = [
            f"{share:.0%} of the fine-tunes",
            "rank correlation of row means",
            "median by run",
            "without the worst cluster",
            "AUROC, worst cluster",
            "right cluster",
        ]
        sections.append(common.table(header, lines))
    sizes = ", ".join(f"{len(known.base)} rows" for known in runs.values())
    largest = ", ".join(
        f"{np.bincount(known.clusters).max() / len(known.clusters):.2f}"
        for known in runs.values()
    )
    draws = table["draw"].nunique()
    head = (
        f"Runs: {len(runs)} ({sizes}); {draws} draws of landmarks. Among the rows left "
        "out: median, and in brackets the middle 90 % of draws. Always saying the "
        f"largest cluster is right for {largest} of the rows."
    )
    return "\n\n".join([head, *sections])


def _spread(values: "pd.Series") -> str:
    known = values.dropna()
    if known.empty:
        return ""
    low, middle, high = known.quantile([0.05, 0.5, 0.95])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, nargs="+", default=[])
    which.add_argument("--study", type=Path)
    parser.add_argument("--config", type=Path, help="of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", type=int, help="features of the first stage")
    parser.add_argument("--minutes", type=float, help="stop making rows after so many")
    parser.add_argument("--share", type=float, nargs="+", default=[0.2, 0.4, 0.6])
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--title", default="Row means without their fine-tunes")
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if arguments.study and not arguments.config:
        parser.error("--study needs the --config that it was made with")
    runs = {str(path): load(path.absolute()) for path in arguments.run}
    deadline = time.monotonic() + 60 * (arguments.minutes or 1e6)
    for seed in arguments.seeds if arguments.study else []:
        folder = arguments.study.absolute() / f"seed_{seed}"
        run = studies.Run.load(folder, arguments.config, seed, width=arguments.width)
        if not (run.make_base(deadline) and studies.rows_in_time(run, deadline)):
            print("The time is over; the same command does the rest.")
            return
        runs[folder.name] = load_study(run)
    table = study(runs, arguments.share, arguments.draws)
    common.publish(
        arguments.title,
        report(table, runs),
        arguments.output,
        ("torch", "nnunetv2", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
