"""Is the similarity classifier worth it? One cohort, several trainings of everything.

    python -m benchmarks.adaptive --work FOLDER [--config config/adaptive_study.yaml]
        [--seeds 0 1 2] [--table-only] [--output FILE]

Each seed is a run of the workflow in FOLDER/seed_<seed>, in one process of one thread
(`benchmarks.one_process`): the base, its fine-tunes and the controls are trained with
that seed, on the same cases. What is done is kept; started again, the rest is done.
Then the validations of all seeds are put into one table, whose intervals hold for
other cases and for other trainings.

`full_retrained` has no row of its own here: the base of each seed is the whole pool,
trained from scratch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import setting as common

if TYPE_CHECKING:
    import pandas as pd

# What a verdict is given for; the others are in the table of methods.
REFERENCES = (
    *("base", "continued_full", "continued_kept", "uniform_all"),
    *("uniform_without_worst", "best_row_mean", "confidence_alone"),
)


@dataclass(frozen=True)
class Goal:
    """Something asked for: the value of each seed, and what it must lie within."""

    what: str
    values: list[float]
    least: float = -1e9
    most: float = 1e9

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def met(self) -> bool:
        return self.least <= self.mean <= self.most


def folder_of(work: Path, seed: int) -> Path:
    return work / f"seed_{seed}"


def prepare(work: Path, config: Path, seed: int, finished: int | None = None) -> Path:
    """A checkout of the workflow with the config of one seed.

    A new one takes its cohort over from a finished seed: the cases and what is
    preprocessed of them, with their dates, depend on no training.
    """
    folder = folder_of(work, seed)
    if not (folder / "Snakefile").exists():
        common.copy_workflow(folder)
        if finished is not None:
            cohort = folder_of(work, finished) / "results/nnunet"
            shutil.copytree(cohort, folder / "results/nnunet")
    merged = yaml.safe_load(config.read_text("utf-8"))
    merged["training"]["seed"] = seed
    merged["pruning"]["seeds"] = [seed]
    merged["adaptive"]["seeds"] = [seed]
    (folder / "study.yaml").write_text(yaml.safe_dump(merged), encoding="utf-8")
    return folder


def run(folder: Path) -> None:
    """All that the validation of one seed needs."""
    command = [sys.executable, "-m", "benchmarks.one_process", "adaptive"]
    command += ["--configfile", "study.yaml", "--quiet", "all"]
    paths = [str(common.ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(command, cwd=folder, env=environment, check=True)


def read(work: Path, seeds: Sequence[int]) -> tuple["pd.DataFrame", list[Any]]:
    """Each method on each held-out case by each seed, and each seed's validation."""
    import pandas as pd

    from casesim.adaptive import table

    parts, contents = [], []
    for seed in seeds:
        results = folder_of(work, seed) / "results/adaptive"
        content = json.loads((results / "validation.json").read_text("utf-8"))
        rows = table.read([results / "validation_cases.tsv"])
        parts.append(rows[rows["region"] == content["region"]].assign(seed=seed))
        contents.append(content)
    return pd.concat(parts, ignore_index=True), contents


def goals(
    contents: Sequence[Mapping[str, Any]], contrasts: Mapping[str, Any]
) -> list[Goal]:
    """What was asked for of the stage, and what came out with each seed."""

    def of(*keys: str) -> list[float]:
        found = []
        for value in contents:
            for key in keys:
                value = value[key]
            found.append(float(value))  # type: ignore[arg-type]
        return found

    ahead = "predicted_minus_row_mean"
    return [
        Goal(
            "mean error of the base's predicted Dice / of saying the mean: at most 0.6",
            of("base", "mae_ratio"),
            most=0.6,
        ),
        Goal(
            "rank correlation of predicted and true Dice: at least 0.75",
            of("base", "rank_correlation"),
            least=0.75,
        ),
        Goal("bias: at most 0.03", of("base", "bias"), -0.03, 0.03),
        Goal(
            "held-out cases inside their 90 % interval: 0.85 to 0.97",
            of("base", "coverage"),
            0.85,
            0.97,
        ),
        Goal(
            "within columns, sound rows, rank correlation: at least 0.5",
            of("within_columns", "predicted_dice", "mean"),
            least=0.5,
        ),
        Goal(
            "... beyond the row mean's: lower end of the interval above 0",
            of("within_columns", ahead, "ci_low"),
            least=0.0,
        ),
        Goal(
            "share of the way from base to oracle: at least 0.4",
            of("gap_closed"),
            least=0.4,
        ),
        Goal(
            "ensemble above the uniform one of all models, lower end above 0: noise of "
            "all methods pooled, as for arms of the pruning",
            [contrasts["uniform_all"]["interval_low"]],
            least=0.0,
        ),
        Goal(
            "... by the spread of its own differences between trainings",
            [contrasts["uniform_all"]["paired_low"]],
            least=0.0,
        ),
    ]


def report_goals(found: Sequence[Goal]) -> str:
    lines = [
        [
            goal.what,
            f"{goal.mean:.3f}",
            ", ".join(f"{value:.3f}" for value in goal.values),
            "yes" if goal.met else "**no**",
        ]
        for goal in found
    ]
    return common.table(["asked for", "found", "by seed", "met"], lines)


def report_methods(table: "pd.DataFrame") -> str:
    """Each method: mean Dice, change against the base, the range over seeds."""
    from casesim.adaptive import validation

    lines = []
    randoms = []
    wide = table.pivot_table(index="seed", columns="method", values="dice")
    for row in validation.methods(table).to_dict("records"):
        name = str(row["method"])
        if validation.is_random(name):
            randoms.append(row["change"])
            continue
        # One that was not trained with all seeds is compared within its own.
        own = table[table["seed"].isin(table["seed"][table["method"] == name])]
        if len(own) < len(table):
            pair = own[own["method"].isin([name, "base"])]
            row = validation.methods(pair).set_index("method").loc[name].to_dict()
        found, *_ = validation.changes(own, name, "base")
        by_seed = [_mean(values) for values in found]
        lines.append(
            [
                f"`{name}`",
                int(row["n"]),
                f"{row['mean']:.3f}",
                f"{row['change']:+.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]",
                ", ".join(f"{value:+.3f}" for value in by_seed),
            ]
        )
    if randoms:
        span = f"{mean(randoms):+.3f}, from {min(randoms):+.3f} to {max(randoms):+.3f}"
        names = [name for name in wide if validation.is_random(str(name))]
        level = f"{float(wide[names].mean().mean()):.3f}"
        lines.append([f"{len(randoms)} random ensembles", "", level, span, ""])
    header = ["method", "cases", "mean Dice", "change against the base", "by seed"]
    return common.table(header, lines)


def _mean(values: Any) -> float:
    import numpy as np

    return float(np.nanmean(values))


def report_contrasts(contrasts: Mapping[str, Mapping[str, Any]]) -> str:
    """Verdicts on the ensemble."""
    lines = []
    for reference in REFERENCES:
        if (found := contrasts.get(reference)) is None:
            continue
        lines.append(
            [
                f"`{reference}`",
                f"{found['mean']:+.3f}",
                f"[{found['ci_low']:.3f}, {found['ci_high']:.3f}]",
                f"[{found['interval_low']:.3f}, {found['interval_high']:.3f}]",
                f"[{found['paired_low']:.3f}, {found['paired_high']:.3f}]",
                found["verdict"],
            ]
        )
    header = ["against", "change", "95 %, other cases", "95 %, other trainings too"]
    return common.table([*header, "... from its own spread", "verdict"], lines)


def report_left_out(contents: Sequence[Mapping[str, Any]]) -> str:
    """How well what was left out of the learning is predicted, calibration cases."""
    kinds = {
        "by_case": "cases (a fifth at a time)",
        "by_kind": "a whole scanner",
        "by_row": "models (a fifth at a time)",
    }
    lines = []
    for key, what in kinds.items():
        found = [content["fit"][content["region"]] for content in contents]
        if any(key not in summary for summary in found):
            continue
        of_base = [s[key] if key == "by_case" else s[key]["base"] for s in found]
        numbers = [
            ", ".join(f"{of[name]:{form}}" for of in of_base)
            for name, form in (
                ("mae_ratio", ".2f"),
                ("bias", "+.3f"),
                ("rank_correlation", ".2f"),
            )
        ]
        others = [
            f"{s[key]['mae_of_finetuned']:.3f} ({s[key]['bias_of_finetuned']:+.3f})"
            for s in found
            if "mae_of_finetuned" in s[key]
        ]
        lines.append([what, *numbers, ", ".join(others)])
    header = [
        "left out",
        "base: error / of the mean",
        "base: bias",
        "base: rank correlation",
        "fine-tuned models: error (bias)",
    ]
    return common.table(header, lines)


def report(table: "pd.DataFrame", contents: Sequence[Mapping[str, Any]]) -> str:
    """The sections of the study, in Markdown."""
    from casesim.adaptive import validation

    contrasts = validation.contrasts(table)["adaptive"]
    noise = validation.training_noise(table)
    spread = f" Training noise (one mean Dice): {noise.sd:.3f}." if noise else ""
    cases = contents[0]["held_out_cases"]
    return "\n\n".join(
        [
            f"Trainings: {len(contents)}; held-out cases: {cases}.{spread}",
            report_goals(goals(contents, contrasts)),
            report_methods(table),
            "The ensemble:",
            report_contrasts(contrasts),
            "Left out while learning, calibration cases, by seed:",
            report_left_out(contents),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--config", type=Path, default=common.ROOT / "config/adaptive_study.yaml"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table-only", action="store_true", help="compute nothing")
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    if not arguments.table_only:
        finished = None
        for seed in arguments.seeds:
            run(prepare(work, arguments.config, seed, finished))
            finished = seed
    table, contents = read(work, arguments.seeds)
    common.publish(
        "The similarity classifier, several trainings",
        report(table, contents),
        arguments.output,
        ("torch", "nnunetv2", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
