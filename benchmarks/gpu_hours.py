"""GPU hours that an experiment will take, from its dry run and from known speeds.

    python benchmarks/gpu_hours.py --configfile config/paper.yaml [more.yaml]
        [--configfile config/rigorous.yaml] [--pretend-cases 484]
        (--measured RESULTS | --published | --seconds-per-iteration LOW [HIGH])
        [--seconds-per-cell S ...] [--gpus 1 2 4 8] [--output docs/gpu_hours.md]

Each --configfile is an experiment; several files after it are merged, as Snakemake
merges them. `snakemake -n` says which jobs are still to do, so the answer is about what
is left in this folder; --pretend-cases plans for a Decathlon folder of so many cases
that is not here yet. The speeds are those of a finished run (its folder of results,
with its logs beside it), those that nnU-Net published, or numbers of your own.
"""

import argparse
import heapq
import json
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from casesim import settings  # noqa: E402
from casesim.errors import UserError  # noqa: E402
from casesim.files import atomic_path  # noqa: E402

SCHEMA = ROOT / "config/schemas/config.schema.json"

# Rules that train, in the order in which their stages run, and the schedule of each.
TRAININGS = {
    "train_base": "base",
    "finetune": "finetune",
    "refit": "finetune",
    "retrain": "base",
    "continue_base": "finetune",
    "finetune_for_case": "finetune",
}
STAGES = (
    ("train_base",),
    ("finetune", "refit", "continue_base"),
    ("retrain", "finetune_for_case"),
)
# A cell without its label is the same pass of the same network.
CELLS = ("predict", "predict_label_free")

Range = tuple[float, float]

# Seconds of an epoch of 250 iterations, 2d, lowest and highest of three data sets (MSD
# Heart, Liver, Prostate), PyTorch 1.7.1 with mixed precision.
PUBLISHED_SOURCE = (
    "https://github.com/MIC-DKFZ/nnUNet/blob/"
    "13b2fa9870087effc0e2a21315265b0f0925aef6/documentation/expected_epoch_times.md"
)
PUBLISHED_ITERATIONS = 250
PUBLISHED: dict[str, Range] = {
    "A100 40GB": (39.71, 42.21),
    "V100 32GB SXM3": (60.69, 68.88),
    "RTX 2080 Ti": (92.54, 102.81),
}


@dataclass(frozen=True)
class Speed:
    """How fast one device is.

    Attributes:
        name: of the device, or where the numbers come from.
        iteration: lowest and highest seconds of a training iteration, by schedule
            (`base`, `finetune`).
        outside: seconds of a job outside its iterations, by schedule.
        cells: seconds of one cell; several are several assumptions.
    """

    name: str
    iteration: Mapping[str, Range]
    outside: Mapping[str, float] = field(default_factory=dict)
    cells: Sequence[float] = ()


# --- What is to be done ---------------------------------------------------------------


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that `snakemake -n --quiet rules` prints.

    Raises:
        UserError: the output holds no table and does not say that all is done.
    """
    if "Job stats:" not in output:
        if "Nothing to be done" in output:
            return {}
        raise UserError(f"snakemake -n printed no table of jobs:\n{output[-3000:]}")
    table = output.split("Job stats:", 1)[1]
    rows = re.findall(r"^(\w+) +(\d+)\s*$", table, re.MULTILINE)
    return {rule: int(number) for rule, number in rows if rule != "total"}


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a config over another as Snakemake does: mappings key by key."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def read_config(files: Iterable[Path]) -> dict[str, Any]:
    """Files laid over one another, validated and filled."""
    config: dict[str, Any] = {}
    for path in files:
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        merge(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return settings.validate(config, SCHEMA)


def iterations(config: Mapping[str, Any]) -> dict[str, int]:
    """Iterations of one training, by rule."""
    return {
        rule: config["training"][name]["epochs"]
        * config["training"][name]["iterations_per_epoch"]
        for rule, name in TRAININGS.items()
    }


def pretend_decathlon(folder: Path, cases: int) -> None:
    """An MSD Task01 folder in which every file is empty: enough for a dry run."""
    names = [f"BRATS_{number:03d}" for number in range(1, cases + 1)]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for name in names:
            (folder / part / f"{name}.nii.gz").touch()
    content = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background",
            "1": "edema",
            "2": "non-enhancing tumor",
            "3": "enhancing tumour",
        },
        "training": [
            {
                "image": f"./imagesTr/{name}.nii.gz",
                "label": f"./labelsTr/{name}.nii.gz",
            }
            for name in names
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def dry_run(files: Sequence[Path], pretend_cases: int | None) -> dict[str, int]:
    """Jobs that `snakemake -n` would run, by rule."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--nolock"]
    command += ["--cores", "1", "--snakefile", str(ROOT / "Snakefile")]
    paths = [str(path.resolve()) for path in files]
    with tempfile.TemporaryDirectory(prefix="gpu-hours-") as folder:
        if pretend_cases is not None:
            data = Path(folder, "data")
            pretend_decathlon(data, pretend_cases)
            override = Path(folder, "pretend.yaml")
            cohort = {"source": "msd", "path": str(data)}
            override.write_text(yaml.safe_dump({"cohort": cohort}))
            command += ["--directory", folder]
            paths.append(str(override))
        done = subprocess.run(
            [*command, "--configfile", *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UserError(f"snakemake -n failed:\n{done.stdout[-3000:]}")
    return job_counts(done.stdout)


# --- How fast it goes -----------------------------------------------------------------


def published() -> list[Speed]:
    """nnU-Net's own epoch times, as seconds of an iteration; cells are unknown."""
    return [
        Speed(
            name,
            dict.fromkeys(
                ("base", "finetune"),
                (low / PUBLISHED_ITERATIONS, high / PUBLISHED_ITERATIONS),
            ),
        )
        for name, (low, high) in PUBLISHED.items()
    ]


@dataclass(frozen=True)
class Training:
    """What the log of one training says: iterations, their seconds, the device."""

    iterations: int
    seconds: float
    device: str


def read_training_log(text: str) -> Training | None:
    """The epochs that a training's log lists; None if there is none."""
    head = re.search(
        r"epochs of (\d+) iterations, batches of \d+, ([^,]+), \d+ threads", text
    )
    epochs = re.findall(r"^epoch \d+ of \d+: .*?, ([\d.]+) s\b", text, re.MULTILINE)
    if head is None or not epochs:
        return None
    return Training(len(epochs) * int(head[1]), sum(map(float, epochs)), head[2])


def read_benchmark(path: Path) -> float:
    """Wall-clock seconds of a job, from the file of Snakemake's `benchmark`."""
    names, values = path.read_text(encoding="utf-8").splitlines()[:2]
    return float(dict(zip(names.split("\t"), values.split("\t"), strict=True))["s"])


def measured(results: Path) -> Speed:
    """The speed of a finished run.

    Iterations take the seconds of their epochs; what the job took beside them (start,
    reading cases, writing the model) is counted once for each job.

    Args:
        results: the run's folder of results; its logs lie beside it.

    Raises:
        UserError: there is no finished training of both schedules, or no cell.
    """
    found: dict[str, list[tuple[Training, float]]] = {"base": [], "finetune": []}
    for rule, schedule in TRAININGS.items():
        benchmarks = results / "benchmarks"
        one = benchmarks / f"{rule}.tsv"
        paths = [one] if one.is_file() else sorted((benchmarks / rule).glob("*.tsv"))
        for path in paths:
            name = path.relative_to(benchmarks).with_suffix(".log")
            log = results.parent / "logs" / name
            training = read_training_log(log.read_text()) if log.is_file() else None
            if training is not None:
                found[schedule].append((training, read_benchmark(path)))
    for schedule, trainings in found.items():
        if not trainings:
            raise UserError(
                f"{results} has no finished training with the schedule "
                f"training.{schedule}: its benchmarks, with the logs in "
                f"{results.parent / 'logs'}, are what is measured."
            )
    cells = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((results / "scores").rglob("*.json"))
    ]
    if not cells:
        raise UserError(f"{results}/scores has no score of a cell.")
    devices = sorted({str(cell["device"]) for cell in cells})
    iteration, outside = {}, {}
    for schedule, trainings in found.items():
        seconds = sum(training.seconds for training, _ in trainings)
        number = sum(training.iterations for training, _ in trainings)
        wall = sum(time for _, time in trainings)
        iteration[schedule] = (seconds / number, seconds / number)
        outside[schedule] = max(0.0, (wall - seconds) / len(trainings))
    of_cells = sum(sum(cell["seconds"].values()) for cell in cells) / len(cells)
    return Speed(", ".join(devices), iteration, outside, (of_cells,))


# --- How long it takes ----------------------------------------------------------------


def job_seconds(rule: str, number: int, speed: Speed) -> Range:
    """Seconds of one training of `number` iterations, lowest and highest."""
    schedule = TRAININGS[rule]
    low, high = speed.iteration[schedule]
    outside = speed.outside.get(schedule, 0.0)
    return number * low + outside, number * high + outside


def number_of_cells(counts: Mapping[str, int]) -> int:
    """Passes of one network over one case, with or without its label."""
    return sum(counts.get(rule, 0) for rule in CELLS)


def makespan(jobs: Iterable[tuple[int, float]], gpus: int) -> float:
    """Seconds until the last of the jobs ends, the longest first on the next free GPU.

    Args:
        jobs: pairs of a number of jobs and their seconds each.
        gpus: how many there are; each job takes one.
    """
    free = [0.0] * gpus
    for number, seconds in sorted(jobs, key=lambda job: -job[1]):
        for _ in range(number):
            heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def wall_clock(
    counts: Mapping[str, int],
    lengths: Mapping[str, int],
    speed: Speed,
    gpus: int,
    which: int,
) -> float:
    """Hours from the first to the last job, one stage after the other.

    Args:
        counts: jobs by rule.
        lengths: iterations of a training, by rule.
        speed: with the seconds of a cell, if any; the cells divide evenly.
        gpus: how many there are.
        which: 0 for the lowest, 1 for the highest of the speed's numbers.
    """
    seconds = sum(
        makespan(
            [
                (counts.get(rule, 0), job_seconds(rule, lengths[rule], speed)[which])
                for rule in stage
                if counts.get(rule)
            ],
            gpus,
        )
        for stage in STAGES
    )
    if speed.cells:
        cell = (min, max)[which](speed.cells)
        seconds += makespan([(number_of_cells(counts), cell)], gpus)
    return seconds / 3600


# --- The page -------------------------------------------------------------------------


def as_range(low: float, high: float) -> str:
    """Two hours as text, once where they read the same."""
    first, second = (f"{x:,.0f}" if x >= 99.95 else f"{x:.1f}" for x in (low, high))
    return first if first == second else f"{first} to {second}"


def section(
    title: str,
    counts: Mapping[str, int],
    lengths: Mapping[str, int],
    speeds: Sequence[Speed],
    gpus: Sequence[int],
) -> str:
    """GPU hours of one experiment by rule, and its wall-clock hours by GPUs."""
    names = [speed.name for speed in speeds]
    lines = [
        f"## {title}",
        "",
        "GPU hours by rule.",
        "",
        f"| rule | jobs | iterations each | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    totals = [[0.0, 0.0] for _ in speeds]
    for rule in TRAININGS:
        number = counts.get(rule, 0)
        if not number:
            continue
        row = []
        for total, speed in zip(totals, speeds, strict=True):
            hours = [
                number * seconds / 3600
                for seconds in job_seconds(rule, lengths[rule], speed)
            ]
            total[0] += hours[0]
            total[1] += hours[1]
            row.append(as_range(*hours))
        lines.append(f"| {rule} | {number:,} | {lengths[rule]:,} | {' | '.join(row)} |")
    number = sum(counts.get(rule, 0) for rule in TRAININGS)
    row = [as_range(*total) for total in totals]
    lines.append(f"| all trainings | {number:,} | | {' | '.join(row)} |")
    cells, rule = number_of_cells(counts), CELLS[0]
    for seconds in sorted({s for speed in speeds for s in speed.cells}):
        row = [
            f"{cells * seconds / 3600:.1f}" if seconds in speed.cells else ""
            for speed in speeds
        ]
        lines.append(
            f"| {rule}, at {seconds:.3g} s a cell | {cells:,} | | {' | '.join(row)} |"
        )
    if not any(speed.cells for speed in speeds):
        unknown = " | ".join("?" for _ in speeds)
        lines.append(f"| {rule} | {cells:,} | | {unknown} |")
    lines += [
        "",
        "Hours from start to end by number of GPUs, "
        + (
            "cells at the least and at the most of these seconds."
            if any(speed.cells for speed in speeds)
            else "cells left out."
        ),
        "",
        f"| GPUs | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for number in gpus:
        row = [
            as_range(
                *(wall_clock(counts, lengths, speed, number, which) for which in (0, 1))
            )
            for speed in speeds
        ]
        lines.append(f"| {number} | {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def introduction(command: str, arguments: argparse.Namespace) -> str:
    """What the numbers are, and what they are not."""
    parts = [
        "# GPU hours of an experiment",
        "",
        "Written by",
        "",
        "```bash",
        command,
        "```",
        "",
        "from the jobs that `snakemake -n` lists and the schedules of the config. "
        "Stages follow one another (base, fine-tunes and refits, retrained models, "
        "cells); within one, the next free GPU takes the longest job that is left. "
        "Trainings that were interrupted count in full.",
        "",
    ]
    if arguments.pretend_cases:
        parts += [
            f"The dry run was made with a folder of {arguments.pretend_cases} empty "
            "files laid out as MSD Task01.",
            "",
        ]
    if arguments.published:
        parts += [
            "**No GPU of ours was measured.** The speeds are nnU-Net's own published "
            f"epoch times ([documentation]({PUBLISHED_SOURCE})): 2d, "
            f"{PUBLISHED_ITERATIONS} iterations, the lowest and the highest of three "
            "Decathlon data sets (Heart, Liver, Prostate), mixed precision, PyTorch "
            "1.7.1, none with the four channels of brain tumours. An epoch there has "
            "50 validation iterations, too, which this workflow leaves out; the start "
            "of a job, seconds, is not in them.",
            "",
            "| card | seconds an epoch |",
            "|---|---|",
            *(f"| {n} | {low} to {high} |" for n, (low, high) in PUBLISHED.items()),
            "",
        ]
    if arguments.measured:
        parts += [
            f"The speeds were measured in `{arguments.measured}`: seconds an "
            "iteration, seconds of a training job beside its iterations, and seconds "
            "a cell without the loading of its model.",
            "",
        ]
    if arguments.seconds_per_cell:
        values = ", ".join(f"{s:g}" for s in arguments.seconds_per_cell)
        parts += [
            f"Seconds a cell ({values}) are **assumptions**, not measurements: GPU "
            "hours of the cells are cells x seconds / 3600.",
            "",
        ]
    return "\n".join(
        textwrap.fill(part, 92, break_long_words=False, break_on_hyphens=False)
        if len(part) > 92 and part != command
        else part
        for part in parts
    )


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        action="append",
        required=True,
        metavar="FILE",
        help="an experiment: one file, or several that are merged; may be repeated",
    )
    speeds = parser.add_mutually_exclusive_group(required=True)
    speeds.add_argument("--measured", type=Path, metavar="RESULTS")
    speeds.add_argument("--published", action="store_true")
    speeds.add_argument(
        "--seconds-per-iteration", type=float, nargs="+", metavar="SECONDS"
    )
    parser.add_argument(
        "--seconds-per-cell", type=float, nargs="+", default=[], metavar="SECONDS"
    )
    parser.add_argument("--pretend-cases", type=int, metavar="N")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--output", type=Path, help="write the page to this file")
    arguments = parser.parse_args(words)
    numbers = [*(arguments.seconds_per_iteration or []), *arguments.seconds_per_cell]
    if any(number <= 0 for number in numbers) or min(arguments.gpus) < 1:
        parser.error("seconds and GPUs must be positive")
    return arguments


def chosen_speeds(arguments: argparse.Namespace) -> list[Speed]:
    """The speeds that the command line asks for, with its seconds a cell."""
    if arguments.published:
        speeds = published()
    elif arguments.measured:
        speeds = [measured(arguments.measured)]
    else:
        given = arguments.seconds_per_iteration
        bounds = (min(given), max(given))
        speeds = [Speed("given", dict.fromkeys(("base", "finetune"), bounds))]
    cells = arguments.seconds_per_cell
    return [
        Speed(speed.name, speed.iteration, speed.outside, cells or speed.cells)
        for speed in speeds
    ]


def main() -> None:
    arguments = parse()
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    command = f"python benchmarks/{shlex.join(words)}"
    try:
        speeds = chosen_speeds(arguments)
        page = [introduction(command, arguments)]
        for files in arguments.configfile:
            config = read_config(files)
            page.append(
                section(
                    " + ".join(map(str, files)),
                    dry_run(files, arguments.pretend_cases),
                    iterations(config),
                    speeds,
                    arguments.gpus,
                )
            )
    except UserError as error:
        sys.exit(str(error))
    text = "\n".join(page)
    print(text)
    if arguments.output:
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
