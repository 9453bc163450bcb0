"""How long a fine-tune must be: the matrix after shares of its schedule.

    python -m benchmarks.schedule --work FOLDER [--config config/schedule.yaml]
        [--percent 1 2 5 10 20 50 100] [--workers N] [--output FILE]

The cohort, its base model and the copies of each case are the workflow's own, made by
it in FOLDER under the config. Then every train case is fine-tuned with a schedule of
each share of the full length: a training of its own, whose learning rate falls from the
same start to zero within that share. (Snapshots of the full schedule would still be
at a high rate; nobody would stop there.) The full length is trained twice, the second
time with other copies and batches: how far two such matrices agree is the most that a
shorter schedule can be asked for.

What is compared with the full schedule: the order of the row means (Spearman), the
worst cluster (cases in both / in either), and how well the row means find the planted
label errors (AUROC). FOLDER keeps what is done; started again, the rest is done.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import setting as common

if TYPE_CHECKING:
    import pandas as pd

REFIT = "refit"
_LABELS: dict[str, Sequence[int]] = {"edema": [1], "core": [2], "enhancing": [3]}


@dataclass(frozen=True)
class Task:
    """One fine-tune and its row: a share of the schedule, or the refit."""

    name: str
    case: str
    epochs: int
    iterations: int
    seed: int

    @property
    def copies(self) -> str:
        return "augmented_again" if self.name == REFIT else "augmented"


def shorten(schedule: Mapping[str, Any], percent: float) -> tuple[int, int]:
    """Epochs and iterations of each, for a share of a schedule.

    The learning rate falls by epoch: as many as in the full schedule, while each has an
    iteration at least.
    """
    total = round(schedule["epochs"] * schedule["iterations_per_epoch"] * percent / 100)
    total = max(1, total)
    epochs = min(schedule["epochs"], total)
    return epochs, max(1, round(total / epochs))


def prepare(work: Path, config: Path, cores: int) -> dict[str, Any]:
    """The workflow's cohort, base model and copies; the config in effect."""
    if not (work / "Snakefile").exists():
        common.copy_workflow(work)
    merged = yaml.safe_load((common.ROOT / "config/config.yaml").read_text("utf-8"))
    _merge(merged, yaml.safe_load(config.read_text("utf-8")))
    (work / "study.yaml").write_text(yaml.safe_dump(merged), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml"]
    command += ["--cores", str(cores), "--quiet", "rules", "--notemp"]
    subprocess.run([*command, "results/cohort.tsv"], cwd=work, check=True)
    cases = train_cases(work)
    targets = ["results/models/base/fold_all/checkpoint_final.pth"]
    for folder in ("augmented", "augmented_again"):
        targets += [f"results/{folder}/{case}/copy_0.b2nd" for case in cases]
    subprocess.run([*command, *targets], cwd=work, check=True)
    return dict(merged)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def train_cases(work: Path) -> list[str]:
    import pandas as pd

    cohort = pd.read_csv(work / "results/cohort.tsv", sep="\t", dtype=str)
    return sorted(cohort[cohort["train_case"].str.lower() == "true"]["case"])


def run(task: Task, work: Path, config: Mapping[str, Any]) -> None:
    """Fine-tune, and score the model on every train case; a JSON file is left."""
    path = work / f"study/{task.name}/{task.case}.json"
    if path.exists():
        return
    import torch

    from casesim.inference import label_maps, overlap, sliding_window
    from casesim.nnunet import checkpoints, preprocessing
    from casesim.nnunet.files import write_json
    from casesim.training import run as training

    setting = common.Setting(work, 1)
    device = common.device()
    model = setting.model(f"study/{task.name}/{task.case}")
    started = time.perf_counter()
    checkpoint = training.train(
        [
            work / f"results/{task.copies}/{task.case}/copy_{copy}"
            for copy in range(config["augmentation"]["copies"])
        ],
        setting.plans,
        setting.dataset,
        config["nnunet"]["configuration"],
        model,
        {
            "epochs": task.epochs,
            "iterations_per_epoch": task.iterations,
            "initial_lr": config["training"]["finetune"]["initial_lr"],
        },
        seed=task.seed,
        threads=1,
        device=device,
        start_from=setting.checkpoint("base"),
    )
    seconds = time.perf_counter() - started
    torch.set_num_threads(1)
    loaded = checkpoints.load_model(checkpoint, device)
    row = {}
    for case in train_cases(work):
        data, _, properties = preprocessing.load_preprocessed(setting.stem(case))
        logits = sliding_window.predict_logits(
            loaded, data, mirroring=config["inference"]["mirroring"]
        )
        counts = overlap.count(
            label_maps.to_label_map(loaded, logits, properties),
            label_maps.read_label_map(setting.label(case)),
            _LABELS,
        )
        values = [overlap.dice(c["tp"], c["fp"], c["fn"]) for c in counts.values()]
        defined = [value for value in values if not math.isnan(value)]
        row[case] = sum(defined) / len(defined) if defined else None
    checkpoint.unlink()
    write_json(path, {"row": row, "seconds": seconds})


def matrix_of(work: Path, name: str) -> "pd.DataFrame":
    """Train cases x train cases, Dice."""
    import pandas as pd

    rows = {
        path.stem: json.loads(path.read_text("utf-8"))["row"]
        for path in sorted((work / f"study/{name}").glob("*.json"))
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).sort_index()


def analyse(
    work: Path, names: Sequence[str], full: str, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each schedule, compared with the full one."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    from casesim.cohort.phantom.catalogue import IMAGE_DEFECTS, LABEL_DEFECTS
    from casesim.similarity.clustering import cluster
    from casesim.similarity.matrix import row_statistics
    from casesim.similarity.stability import agreement

    cohort = pd.read_csv(work / "results/cohort.tsv", sep="\t", dtype=str)
    matrices = {name: matrix_of(work, name) for name in names}
    means = {name: row_statistics(m)["row_mean"] for name, m in matrices.items()}
    worst = {}
    for name, matrix in matrices.items():
        table = cluster(matrix, bootstraps=100, **config["clusters"]).clusters
        worst[name] = set(table[table["worst"]]["case"])
    planted = cohort.set_index("case")["planted"].fillna("").reindex(means[full].index)
    # A bad image is neither right nor wrong to find while labels are looked for.
    judged = planted[~planted.isin(IMAGE_DEFECTS)]
    aurocs = {
        name: roc_auc_score(judged.isin(LABEL_DEFECTS), -row_means[judged.index])
        for name, row_means in means.items()
    }
    rows = []
    for name in names:
        found = agreement(means[full].to_numpy(), means[name].to_numpy())
        refit = agreement(means[REFIT].to_numpy(), means[name].to_numpy())
        either = worst[full] | worst[name]
        seconds = [
            json.loads(path.read_text("utf-8"))["seconds"]
            for path in (work / f"study/{name}").glob("*.json")
        ]
        rows.append(
            {
                "name": name,
                "spearman": found.spearman,
                "low": found.spearman_low,
                "high": found.spearman_high,
                "spearman_refit": refit.spearman,
                "worst": len(worst[name]),
                "worst_overlap": (
                    len(worst[full] & worst[name]) / len(either) if either else math.nan
                ),
                "auroc": float(aurocs[name]),
                "spread": float(means[name].std()),
                "seconds": float(np.mean(seconds)),
            }
        )
    return rows


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
        "AUROC, label errors",
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
        "--percent", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 100]
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if 100 not in arguments.percent:
        parser.error("--percent needs 100, with which the others are compared")
    work = arguments.work.absolute()
    config = prepare(work, arguments.config, arguments.workers)
    schedule = config["training"]["finetune"]
    cases = train_cases(work)
    tasks = []
    iterations = {}
    # Longest first, and the full schedule before all: what is compared with.
    for percent in [*sorted(arguments.percent, reverse=True), None]:
        name = REFIT if percent is None else str(percent)
        epochs, each = shorten(schedule, percent or 100)
        iterations[name] = epochs * each
        # Those of the config's schema, unless it says otherwise.
        seed = config["training"].get("seed", 0)
        if percent is None:
            seed = config.get("stability", {}).get("seed", 1)
        tasks += [Task(name, case, epochs, each, seed) for case in cases]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for future in [pool.submit(run, task, work, config) for task in tasks]:
            future.result()
    names = [*map(str, sorted(arguments.percent)), REFIT]
    rows = analyse(work, names, "100", config)
    (work / "study/rows.json").write_text(json.dumps(rows, indent=1))
    common.publish(
        f"Fine-tunes of {schedule['epochs'] * schedule['iterations_per_epoch']} "
        "iterations and less",
        report(rows, iterations, len(cases)),
        arguments.output,
    )


if __name__ == "__main__":
    main()
