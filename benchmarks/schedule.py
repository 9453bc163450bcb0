"""How long a fine-tune must be: the matrix after shares of its schedule.

    python -m benchmarks.schedule --work FOLDER [--config config/schedule.yaml]
        [--percent 5 10 20 50 100 20@5] [--workers N] [--minutes M] [--output FILE]

The cohort and its base model are the workflow's own, made by it in FOLDER under the
config. Then every train case is fine-tuned with a schedule of each share of the full
length: a training of its own, whose learning rate falls from the same start to zero
within that share. (Snapshots of the full schedule would still be at a high rate; nobody
would stop there.) With `20@5`, a fifth of the length begins with five times the rate,
so that the rates add up to as much. Shares are of the config's length, and may be above
100. The longest is trained twice, the second time with other copies and batches: how
far two such matrices agree is the most that a shorter schedule can be asked for. So is
each with a higher rate: how far two of these agree tells what is their own noise. The
base model's Dice on each train case costs no fine-tune at all, and has a line, too.

What is compared with the longest schedule: the order of the row means (Spearman), the
worst cluster (cases in both / in either), how well row means and signatures find the
known label errors (AUROC), and how many get their right kind. FOLDER keeps what is
done; started again, the rest is done.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import setting as common
from benchmarks.studies import Run, Task, do_in_time, rows_of

if TYPE_CHECKING:
    import pandas as pd

REFIT = "refit"
BASE = "base"


@dataclass(frozen=True)
class Share:
    """A share of the config's schedule.

    Attributes:
        percent: of its iterations.
        faster: how many times its initial learning rate.
    """

    percent: float
    faster: float = 1.0

    @classmethod
    def read(cls, text: str) -> "Share":
        """`20` or `20@5`; ValueError for what is neither, or not above zero."""
        numbers = [float(part) for part in text.split("@")]
        if len(numbers) > 2 or min(numbers) <= 0:
            raise ValueError(f"no share of a schedule: {text}")
        return cls(*numbers)

    @property
    def name(self) -> str:
        """As `read` has it."""
        rate = "" if self.faster == 1 else f"@{self.faster:g}"
        return f"{self.percent:g}{rate}"

    @property
    def title(self) -> str:
        """For the table."""
        rate = "" if self.faster == 1 else f", {self.faster:g} x the rate"
        return f"{self.percent:g} %{rate}"


def shorten(schedule: Mapping[str, Any], percent: float) -> tuple[int, int]:
    """Epochs and iterations of each, for a share of a schedule.

    The learning rate falls by epoch: as many as in the full schedule, while each has an
    iteration at least.
    """
    total = round(schedule["epochs"] * schedule["iterations_per_epoch"] * percent / 100)
    total = max(1, total)
    epochs = min(schedule["epochs"], total)
    return epochs, max(1, round(total / epochs))


def longest_of(shares: Iterable[Share]) -> Share:
    """That with which the others are compared; of equals, the one with the config's
    rate."""
    return max(shares, key=lambda share: (share.percent, share.faster == 1))


def again(share: Share) -> str:
    """The name of a share's own refit."""
    return f"{share.name} again"


def plan(run: Run, shares: Iterable[Share]) -> list[Task]:
    """All fine-tunes; the longest schedule and its refit first, since without them the
    others are compared with nothing."""
    schedule = run.study.config["training"]["finetune"]
    refit = run.study.config["stability"]["seed"]
    longest = longest_of(shares)
    order = [(longest.name, longest, run.seed), (REFIT, longest, refit)]
    order += [(share.name, share, run.seed) for share in shares if share != longest]
    order += [(again(share), share, refit) for share in shares if share.faster != 1]
    return [
        Task(
            name,
            case,
            *shorten(schedule, share.percent),
            schedule["initial_lr"] * share.faster,
            seed,
        )
        for name, share, seed in order
        for case in run.train
    ]


def analyse(run: Run, shares: Sequence[Share]) -> list[dict[str, Any]]:
    """A row for each schedule and for the base model, compared with the longest."""
    import pandas as pd

    from casesim.evidence.truth import read_truth
    from casesim.similarity.clustering import cluster
    from casesim.similarity.matrix import row_statistics
    from casesim.similarity.stability import agreement

    cohort = run.results / "cohort.tsv"
    truth = read_truth(pd.read_csv(cohort, sep="\t", dtype=str, na_filter=False))
    full = longest_of(shares).name
    titles = {BASE: "none: the base model's Dice"}
    titles |= {share.name: share.title for share in shares}
    titles |= {REFIT: "the longest, refitted"}
    names = [name for name in titles if name != BASE]
    rows = {name: rows_of(run, name) for name in names}
    means = {
        name: row_statistics(matrix)["row_mean"].loc[run.train]
        for name, (matrix, _, _) in rows.items()
    }
    means[BASE] = base_dice(run)
    of_two = {full: means[REFIT], REFIT: means[full]}
    for share in shares:
        if share.faster != 1:
            matrix, _, _ = rows_of(run, again(share))
            of_two[share.name] = row_statistics(matrix)["row_mean"].loc[run.train]
    worst: dict[str, set[str]] = {}
    for name, (matrix, _, _) in rows.items():
        options = run.study.config["clusters"]
        table = cluster(matrix, bootstraps=100, **options).clusters
        worst[name] = set(table[table["worst"]]["case"])
    lines = []
    for name, title in titles.items():
        _, errors, seconds = rows.get(name, (None, None, 0.0))
        with_full = agreement(means[full].to_numpy(), means[name].to_numpy())
        with_refit = agreement(means[REFIT].to_numpy(), means[name].to_numpy())
        overlap = own = math.nan
        if name in of_two:
            own = agreement(means[name].to_numpy(), of_two[name].to_numpy()).spearman
        if name in worst and (either := worst[full] | worst[name]):
            overlap = len(worst[full] & worst[name]) / len(either)
        lines.append(
            {
                "name": name,
                "title": title,
                "spearman": with_full.spearman,
                "low": with_full.spearman_low,
                "high": with_full.spearman_high,
                "spearman_refit": with_refit.spearman,
                "spearman_own": own,
                "worst": len(worst[name]) if name in worst else None,
                "worst_overlap": overlap,
                "spread": float(means[name].std()),
                "seconds": seconds,
                **found_errors(truth, means[name], run.kinds(errors, folds=False)),
            }
        )
    return lines


def base_dice(run: Run) -> "pd.Series":
    """Dice of the base model on each train case (mean over labels), by case id."""
    from casesim.inference import overlap

    paths = [run.results / f"scores/base/{case}.json" for case in run.train]
    return overlap.dice_by_case(map(overlap.read_record, paths), overlap.MEAN)


def found_errors(
    truth: "pd.DataFrame", row_means: "pd.Series", kinds: "pd.DataFrame"
) -> dict[str, Any]:
    """How well the known label errors are found.

    Args:
        truth: from `truth.read_truth`.
        row_means: by case id.
        kinds: from `kinds.classify`.

    Returns:
        `auroc` of the row means and `auroc_signature` of the signatures, NaN where no
        error is known; `right`, how many of `defects` errors get their right kind.
    """
    from benchmarks.evidence import RIGHT, outcome
    from casesim.evidence.detection import detection
    from casesim.evidence.truth import LABEL

    planted = truth[truth["defect"] == LABEL]["kind"]
    auroc: dict[Any, float] = {"row_mean": math.nan, "signature": math.nan}
    if len(planted):
        scores = {"row_mean": row_means, "signature": -kinds["suspicion"]}
        found = detection(truth, scores, {"rows": math.nan, "folds": math.nan})
        found = found[(found["defect"] == LABEL) & (found["kind"] == "any")]
        auroc |= found.set_index("score")["auroc"].to_dict()
    right = list(map(outcome, planted, kinds["kind"].reindex(planted.index)))
    return {
        "auroc": float(auroc["row_mean"]),
        "auroc_signature": float(auroc["signature"]),
        "right": right.count(RIGHT),
        "defects": len(planted),
    }


def report(
    rows: Sequence[Mapping[str, Any]], iterations: Mapping[str, int], cases: int
) -> str:
    """The table of the study, in Markdown."""
    header = [
        "schedule",
        "iterations",
        "row means: Spearman with the longest (95 %)",
        "with the refit",
        "of two of its own",
        "worst cluster: cases, in both / in either",
        "AUROC of label errors: row mean",
        "signature",
        "label errors with the right kind",
        "s a fine-tune",
    ]
    lines = [
        [
            row["title"],
            iterations.get(row["name"], 0),
            f"{row['spearman']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            f"{row['spearman_refit']:.3f}",
            "" if math.isnan(row["spearman_own"]) else f"{row['spearman_own']:.3f}",
            ""
            if row["worst"] is None
            else f"{row['worst']}, {row['worst_overlap']:.2f}",
            f"{row['auroc']:.3f}",
            f"{row['auroc_signature']:.3f}",
            f"{row['right']} of {row['defects']}",
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    return f"{cases} train cases.\n\n{common.table(header, lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--config", type=Path, default=common.ROOT / "config/schedule.yaml"
    )
    parser.add_argument(
        "--percent",
        type=Share.read,
        nargs="+",
        default=[Share(percent) for percent in (5, 10, 20, 50, 100)],
        help="shares of the schedule; 20@5 is a fifth with five times the rate",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="cohort.path, for real cases")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--width", type=int, help="features of the first stage")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    shares = sorted(set(arguments.percent), key=lambda s: (s.percent, s.faster))
    if len(shares) < 2:
        parser.error("--percent needs two shares at least")
    deadline = time.monotonic() + 60 * (arguments.minutes or 1e6)
    work = arguments.work.absolute()
    run = Run.load(
        work, arguments.config, arguments.seed, arguments.data, arguments.width
    )
    if not run.make_base(deadline):
        print("The time is over; the same command does the rest.")
        return
    tasks = plan(run, shares)
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for outcome in pool.map(
            do_in_time, tasks, [run] * len(tasks), [deadline] * len(tasks)
        ):
            if not outcome:
                print("The time is over; the same command does the rest.")
                return
    rows = analyse(run, shares)
    (work / "study/rows.json").write_text(json.dumps(rows, indent=1))
    common.publish(
        f"Fine-tunes of {tasks[0].epochs * tasks[0].iterations} iterations and less",
        report(rows, {t.name: t.epochs * t.iterations for t in tasks}, len(run.train)),
        arguments.output,
    )


if __name__ == "__main__":
    main()
