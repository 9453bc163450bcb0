"""How long a fine-tune must be: the matrix after shares of its schedule.

    python -m benchmarks.schedule --work FOLDER [--config config/schedule.yaml]
        [--percent 5 10 20 50 100] [--workers N] [--minutes M] [--output FILE]

The cohort and its base model are the workflow's own, made by it in FOLDER under the
config. Then every train case is fine-tuned with a schedule of each share of the full
length: a training of its own, whose learning rate falls from the same start to zero
within that share. (Snapshots of the full schedule would still be at a high rate; nobody
would stop there.) The full length is trained twice, the second time with other copies
and batches: how far two such matrices agree is the most that a shorter schedule can be
asked for.

What is compared with the full schedule: the order of the row means (Spearman), the
worst cluster (cases in both / in either), how well row means and signatures find the
known label errors (AUROC), and how many get their right kind. FOLDER keeps what is
done; started again, the rest is done.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import setting as common
from benchmarks.studies import Run, Task, do_in_time, rows_of

REFIT = "refit"


def shorten(schedule: Mapping[str, Any], percent: float) -> tuple[int, int]:
    """Epochs and iterations of each, for a share of a schedule.

    The learning rate falls by epoch: as many as in the full schedule, while each has an
    iteration at least.
    """
    total = round(schedule["epochs"] * schedule["iterations_per_epoch"] * percent / 100)
    total = max(1, total)
    epochs = min(schedule["epochs"], total)
    return epochs, max(1, round(total / epochs))


def plan(run: Run, percents: Sequence[int]) -> list[Task]:
    """All fine-tunes, the full schedule before all: what is compared with."""
    schedule = run.study.config["training"]["finetune"]
    tasks = []
    for percent in [*sorted(percents, reverse=True), None]:
        name = REFIT if percent is None else str(percent)
        seed = run.study.config["stability"]["seed"] if percent is None else run.seed
        length = shorten(schedule, percent or 100)
        tasks += [Task(name, case, *length, seed) for case in run.train]
    # The refit before the shorter ones: without it, they are compared with nothing.
    order = {name: place for place, name in enumerate(["100", REFIT])}
    return sorted(tasks, key=lambda task: order.get(task.name, len(order)))


def analyse(run: Run, names: Sequence[str], full: str = "100") -> list[dict[str, Any]]:
    """A row for each schedule, compared with the full one."""
    import pandas as pd

    from benchmarks.evidence import RIGHT, outcome
    from casesim.evidence.detection import detection
    from casesim.evidence.truth import LABEL, read_truth
    from casesim.similarity.clustering import cluster
    from casesim.similarity.matrix import row_statistics
    from casesim.similarity.stability import agreement

    cohort = run.results / "cohort.tsv"
    truth = read_truth(pd.read_csv(cohort, sep="\t", dtype=str, na_filter=False))
    planted = truth[truth["defect"] == LABEL]["kind"]
    rows = {name: rows_of(run, name) for name in names}
    means = {n: row_statistics(m)["row_mean"] for n, (m, _, _) in rows.items()}
    worst = {}
    for name, (matrix, _, _) in rows.items():
        options = run.study.config["clusters"]
        table = cluster(matrix, bootstraps=100, **options).clusters
        worst[name] = set(table[table["worst"]]["case"])
    lines = []
    for name, (_, errors, seconds) in rows.items():
        kinds = run.kinds(errors, folds=False)
        scores = {"row_mean": means[name], "signature": -kinds["suspicion"]}
        found = detection(truth, scores, {"rows": math.nan, "folds": math.nan})
        found = found[(found["defect"] == LABEL) & (found["kind"] == "any")]
        auroc = found.set_index("score")["auroc"]
        named = kinds["kind"].reindex(planted.index)
        right = list(map(outcome, planted, named))
        with_full = agreement(means[full].to_numpy(), means[name].to_numpy())
        refit = agreement(means[REFIT].to_numpy(), means[name].to_numpy())
        either = worst[full] | worst[name]
        lines.append(
            {
                "name": name,
                "spearman": with_full.spearman,
                "low": with_full.spearman_low,
                "high": with_full.spearman_high,
                "spearman_refit": refit.spearman,
                "worst": len(worst[name]),
                "worst_overlap": (
                    len(worst[full] & worst[name]) / len(either) if either else math.nan
                ),
                "auroc": float(auroc["row_mean"]),
                "auroc_signature": float(auroc["signature"]),
                "right": right.count(RIGHT),
                "defects": len(planted),
                "spread": float(means[name].std()),
                "seconds": seconds,
            }
        )
    return lines


def report(
    rows: Sequence[Mapping[str, Any]], iterations: Mapping[str, int], cases: int
) -> str:
    """The table of the study, in Markdown."""
    header = [
        "schedule",
        "iterations",
        "row means: Spearman with the full one (95 %)",
        "with the refit",
        "worst cluster: cases, in both / in either",
        "AUROC of label errors: row mean",
        "signature",
        "label errors with the right kind",
        "s a fine-tune",
    ]
    lines = [
        [
            "full, refitted" if row["name"] == REFIT else f"{row['name']} %",
            iterations[row["name"]],
            f"{row['spearman']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            f"{row['spearman_refit']:.3f}",
            f"{row['worst']}, {row['worst_overlap']:.2f}",
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
    parser.add_argument("--percent", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="cohort.path, for real cases")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--width", type=int, help="features of the first stage")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if 100 not in arguments.percent:
        parser.error("--percent needs 100, with which the others are compared")
    deadline = time.monotonic() + 60 * (arguments.minutes or 1e6)
    work = arguments.work.absolute()
    run = Run.load(
        work, arguments.config, arguments.seed, arguments.data, arguments.width
    )
    if not run.make_base(deadline):
        print("The time is over; the same command does the rest.")
        return
    tasks = plan(run, arguments.percent)
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for outcome in pool.map(
            do_in_time, tasks, [run] * len(tasks), [deadline] * len(tasks)
        ):
            if not outcome:
                print("The time is over; the same command does the rest.")
                return
    names = [*map(str, sorted(arguments.percent)), REFIT]
    rows = analyse(run, names)
    (work / "study/rows.json").write_text(json.dumps(rows, indent=1))
    common.publish(
        f"Fine-tunes of {run.iterations('finetune')} iterations and less",
        report(rows, {t.name: t.epochs * t.iterations for t in tasks}, len(run.train)),
        arguments.output,
    )


if __name__ == "__main__":
    main()
