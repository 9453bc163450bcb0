"""GPU hours that an experiment will take, from its dry run and from known speeds.

    python -m benchmarks.gpu_hours --configfile config/paper.yaml [more.yaml]
        [--configfile config/rigorous.yaml] [--pretend-cases 484]
        [--measured RESULTS] [--own] [--published] [--seconds-per-iteration LOW [HIGH]]
        [--seconds-per-cell S ...] [--beside config/paper.yaml] [--gpus 1 2 4 8]
        [--output docs/gpu_hours.md]

Each --configfile is an experiment; several files after it are merged, as Snakemake
merges them. `snakemake -n` says which jobs are still to do, so the answer is about what
is left in this folder; --pretend-cases plans for a Decathlon folder of so many cases
that is not here yet. The speeds are those of a finished run (its folder of results,
with its logs beside it), those that `benchmarks/training.py` has measured, those that
nnU-Net published, or numbers of your own; of several, each has its column.
"""

import argparse
import heapq
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import speeds as known
from benchmarks.experiments import (
    CELLS,
    STAGES,
    TRAININGS,
    dry_run,
    iterations,
    read_config,
)
from benchmarks.speeds import Range, Speed
from casesim.errors import UserError
from casesim.files import atomic_path


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
    beside: Mapping[str, int] | None = None,
) -> str:
    """GPU hours of one experiment by rule, and its wall-clock hours by GPUs.

    Args:
        title: of the section.
        counts: jobs by rule.
        lengths: iterations of a training, by rule.
        speeds: a column each.
        gpus: a line each.
        beside: lengths of another schedule, which nnU-Net's own is compared with;
            None for no comparison.
    """
    names = [speed.name for speed in speeds]
    lines = [
        f"## {title}",
        "",
        "GPU hours by rule.",
        "",
        f"| rule | jobs | iterations each | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for rule in TRAININGS:
        number = counts.get(rule, 0)
        if not number:
            continue
        row = [as_range(*hours({rule: number}, lengths, speed)[0]) for speed in speeds]
        lines.append(f"| {rule} | {number:,} | {lengths[rule]:,} | {' | '.join(row)} |")
    number = sum(counts.get(rule, 0) for rule in TRAININGS)
    row = [as_range(*hours(counts, lengths, speed)[0]) for speed in speeds]
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
    if any(speed.network for speed in speeds):
        row = [
            "?" if speed.network is None else f"{cells * speed.network / 3600:.1f}"
            for speed in speeds
        ]
        lines.append(f"| {rule}, the network alone | {cells:,} | | {' | '.join(row)} |")
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
    if beside is not None and (text := comparison(counts, lengths, beside, speeds)):
        lines += ["", _filled(text)]
    return "\n".join([*lines, ""])


def hours(
    counts: Mapping[str, int], lengths: Mapping[str, int], speed: Speed
) -> tuple[Range, float]:
    """GPU hours of all trainings, lowest and highest, and of the cells' networks."""
    low, high = (
        sum(
            counts[rule] * job_seconds(rule, lengths[rule], speed)[which] / 3600
            for rule in TRAININGS
            if counts.get(rule)
        )
        for which in (0, 1)
    )
    return (low, high), number_of_cells(counts) * (speed.network or 0.0) / 3600


def comparison(
    counts: Mapping[str, int],
    lengths: Mapping[str, int],
    beside: Mapping[str, int],
    speeds: Sequence[Speed],
) -> str:
    """Ours with its schedule beside nnU-Net's with another, on the card on which both
    were measured; empty where they were not."""
    ours = [s for s in speeds if s.name.endswith(known.OURS) and s.network]
    theirs = [s for s in speeds if s.name.endswith(known.NNUNET) and s.network]
    if not ours or not theirs:
        return ""
    (trained, _), passed = hours(counts, lengths, ours[0])
    (low, high), passes = hours(counts, beside, theirs[0])
    fewer = as_range(
        (low + passes) / (trained + passed), (high + passes) / (trained + passed)
    )
    in_trainings = as_range(low / trained, high / trained)
    return (
        f"Trainings and the cells' networks, on one {ours[0].name.split(',')[0]}: "
        f"{trained + passed:.1f} GPU hours. With nnU-Net's trainer and predictor and "
        f"fine-tunes of {beside['finetune']:,} iterations: "
        f"{as_range(low + passes, high + passes)}, {fewer} times as much (in the "
        f"trainings alone {in_trainings} times). What a cell takes beside its network "
        "is in neither."
    )


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
        "Trainings that were interrupted count in full; a cascade's two stages as if "
        "they were equally fast.",
        "",
    ]
    if arguments.pretend_cases:
        parts += [
            f"The dry run was made with a folder of {arguments.pretend_cases} empty "
            "files laid out as MSD Task01.",
            "",
        ]
    if arguments.own:
        parts += [
            "**Measured of this product**: [benchmarks/training.md]"
            "(benchmarks/training.md) has seconds of an iteration on that card, ours "
            "and nnU-Net's trainer side by side, with nnU-Net's batch size for brain "
            "tumours. Ours are of whole fine-tunes, with their start (a warm compiler "
            "cache); nnU-Net's has its batches at hand and no start. "
            "`training.compile: auto`, the default, compiles trainings of these "
            "lengths. The cells' networks alone, a whole case of 133 slices each: "
            "[benchmarks/predictor.md](benchmarks/predictor.md), ours with "
            "`inference.compile: true`, which is not the default.",
            "",
        ]
    if arguments.published:
        parts += [
            "**Published, of nnU-Net**: its own epoch times "
            f"([documentation]({known.PUBLISHED_SOURCE})): 2d, "
            f"{known.PUBLISHED_ITERATIONS} iterations, the lowest and the highest of "
            "three Decathlon data sets (Heart, Liver, Prostate), mixed precision, "
            "PyTorch 1.7.1, none with the four channels of brain tumours. An epoch "
            "there has 50 validation iterations, too, which this workflow leaves out; "
            "the start of a job, seconds, is not in them.",
            "",
            "| card | seconds an epoch |",
            "|---|---|",
            *(f"| {n} | {a} to {b} |" for n, (a, b) in known.PUBLISHED.items()),
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
        _filled(part) if len(part) > 92 and part != command else part for part in parts
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, 92, break_long_words=False, break_on_hyphens=False)


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
    parser.add_argument("--measured", type=Path, metavar="RESULTS")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--published", action="store_true")
    parser.add_argument(
        "--seconds-per-iteration", type=float, nargs="+", metavar="SECONDS", default=[]
    )
    parser.add_argument(
        "--seconds-per-cell", type=float, nargs="+", default=[], metavar="SECONDS"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="compare with nnU-Net's own and the fine-tunes of this config",
    )
    parser.add_argument("--pretend-cases", type=int, metavar="N")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--output", type=Path, help="write the page to this file")
    arguments = parser.parse_args(words)
    numbers = [*arguments.seconds_per_iteration, *arguments.seconds_per_cell]
    if any(number <= 0 for number in numbers) or min(arguments.gpus) < 1:
        parser.error("seconds and GPUs must be positive")
    sources = (arguments.measured, arguments.own, arguments.published)
    if not any((*sources, arguments.seconds_per_iteration)):
        parser.error("give a speed: --measured, --own, --published, or seconds")
    return arguments


def chosen_speeds(arguments: argparse.Namespace) -> list[Speed]:
    """The speeds that the command line asks for, with its seconds a cell."""
    speeds = []
    if arguments.measured:
        speeds.append(known.measured(arguments.measured))
    if arguments.own:
        pages = (known.OWN, known.OWN_PREDICTION)
        speeds += known.own(*(page.read_text(encoding="utf-8") for page in pages))
    if arguments.published:
        speeds += known.published()
    if given := arguments.seconds_per_iteration:
        bounds = (min(given), max(given))
        speeds.append(Speed("given", dict.fromkeys(("base", "finetune"), bounds)))
    cells = arguments.seconds_per_cell
    return [replace(speed, cells=cells or speed.cells) for speed in speeds]


def main() -> None:
    arguments = parse()
    command = f"python -m benchmarks.gpu_hours {shlex.join(sys.argv[1:])}"
    try:
        speeds = chosen_speeds(arguments)
        page = [introduction(command, arguments)]
        beside = (
            iterations(read_config([arguments.beside])) if arguments.beside else None
        )
        for files in arguments.configfile:
            config = read_config(files)
            page.append(
                section(
                    " + ".join(map(str, files)),
                    dry_run(files, arguments.pretend_cases),
                    iterations(config),
                    speeds,
                    arguments.gpus,
                    beside,
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
