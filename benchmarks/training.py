"""One iteration of training by this workflow and by nnU-Net's trainer, side by side.

    python -m benchmarks.training [--settings 2d:plan 3d_fullres:plan 2d:12]
        [--parts iterations jobs loading slots] [--iterations N] [--turns N]
        [--losses N] [--cores N] [--output docs/benchmarks/training.md]

The plans are nnU-Net's for a hundred brain-tumour cases of the Decathlon's size (its
planner is given a fingerprint of that size) at 8 GB. Each side is a process of its own:
ours compiled, ours not compiled, and nnU-Net's trainer as it ships: compiled on a GPU,
its loss fetched in every iteration. All start from the same weights and get the same
batches, which lie in pinned memory: what is timed is the iteration alone. They are
timed in turns, after a hundred iterations, whose losses are compared: nnU-Net's are
computed twice. All processes compile at the same time, so that the seconds of a first
iteration say little.

Then fine-tunes are run as the workflow runs them, on `--cores` cores (`jobs`): with
batches made on the device, compiled with an empty compiler cache and with a warm one,
and not compiled; and with nnU-Net's transforms in loading processes (`loading`). What
their start takes is all beside their iterations.

`slots` times one, two and four trainings on one device at a time, each with a fourth of
its memory. `--parts` says which of all this is done.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import setting as common
from benchmarks.iterating import FEW, SHAPE, Task, Worker, plans
from benchmarks.real_finetune import Job, make_cases, run_job

DISTINCT_BATCHES = 8
SLOTS = (1, 2, 4)
PARTS = ("iterations", "jobs", "loading", "slots")
# In this order, and with one cache, which the first one fills.
JOBS = {
    "compiled with an empty cache, made on the device": Job("first"),
    "made on the device, compiled": Job("second"),
    "made on the device, not compiled": Job("plain", compiled=False),
    "made by loading processes, compiled": Job("loading", host=True, iterations=20),
}
OURS, PLAIN, NNUNET, AGAIN = "ours", "ours-plain", "nnunet", "nnunet-again"
# What of a side differs from its default.
SIDES: dict[str, dict[str, Any]] = {
    OURS: {},
    PLAIN: {"compiler": None},
    NNUNET: {},
    AGAIN: {},
}


def spread(values: Sequence[float], unit: float = 1000.0) -> str:
    """Median, and the range in brackets."""
    return (
        f"{unit * statistics.median(values):.1f} "
        f"({unit * min(values):.1f} to {unit * max(values):.1f})"
    )


def smooth(losses: Sequence[float], width: int = 10) -> list[float]:
    """Means of ten losses: one batch's is noise."""
    return [
        statistics.mean(losses[i : i + width]) for i in range(0, len(losses), width)
    ]


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of the smoothed losses."""
    return max(abs(a - b) for a, b in zip(smooth(first), smooth(second), strict=True))


@dataclass(frozen=True)
class Outcome:
    """What the sides of a task said first, and their seconds turn by turn."""

    task: Task
    said: dict[str, dict[str, Any]]
    seconds: dict[str, list[float]]

    def ratio(self, ours: str) -> str:
        """nnU-Net's time / that of one of ours, turn by turn: median and range."""
        pairs = zip(self.seconds[ours], self.seconds[NNUNET], strict=True)
        found = [theirs / own for own, theirs in pairs]
        return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def start(
    tasks: Sequence[Task], folder: Path, losses: int
) -> dict[Task, dict[str, Worker]]:
    """The workers of all tasks, which compile at once."""
    workers: dict[Task, dict[str, Worker]] = {}
    for task in tasks:
        options = worker_options(folder, task, losses)
        workers[task] = {
            side: Worker(side, task, folder, {**options, **own})
            for side, own in SIDES.items()
        }
    return workers


def measure(
    workers: Mapping[Task, Mapping[str, Worker]], iterations: int, turns: int
) -> list[Outcome]:
    """All tasks, timed one by one."""
    said = {
        task: {side: worker.read() for side, worker in of_task.items()}
        for task, of_task in workers.items()
    }
    outcomes = []
    for task, of_task in workers.items():
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(turns):
            order = list(of_task.items())
            for side, worker in order if turn % 2 else order[::-1]:
                seconds[side].append(worker.time(iterations))
        outcomes.append(Outcome(task, said[task], seconds))
        print(
            task, {side: spread(times) for side, times in seconds.items()}, flush=True
        )
        for worker in of_task.values():
            worker.end()
    return outcomes


def worker_options(folder: Path, task: Task, first: int) -> dict[str, Any]:
    return {
        "plans": str(folder / f"{task.name}.json"),
        "cache": str(folder / "compiled"),
        "first": first,
        "batches": DISTINCT_BATCHES,
    }


def measure_slots(
    folder: Path, task: Task, iterations: int, side: str
) -> dict[int, float]:
    """Iterations a second of several trainings on one device, together."""
    options = {
        **worker_options(folder, task, FEW),
        **SIDES[side],
        "slots": max(SLOTS),
    }
    workers = []
    for number in range(max(SLOTS)):
        place = folder / f"slot-{side}-{task.name}-{number}"
        place.mkdir()
        workers.append(Worker(side, task, place, options))
    for worker in workers:
        worker.read()
    found = {}
    for number in SLOTS:
        some = workers[:number]
        for worker in some:
            worker.go(iterations)
        found[number] = sum(1 / float(worker.read()["seconds"]) for worker in some)
    for worker in workers:
        worker.end()
    return found


def report(outcomes: Sequence[Outcome]) -> str:
    """Iterations of all tasks, side by side, and how far their losses are apart."""
    times, losses = [], []
    for outcome in outcomes:
        said = outcome.said
        plan = describe(outcome.task, said[OURS]["plan"])
        theirs = outcome.seconds[NNUNET] + outcome.seconds[AGAIN]
        times.append(
            [
                plan,
                spread(outcome.seconds[OURS]),
                spread(outcome.seconds[PLAIN]),
                spread(theirs),
                outcome.ratio(OURS),
                outcome.ratio(PLAIN),
                ", ".join(f"{said[side]['memory']:.1f}" for side in list(SIDES)[:3]),
            ]
        )
        found = [
            distance(said[side]["losses"], said[NNUNET]["losses"])
            for side in (OURS, PLAIN, AGAIN)
        ]
        losses.append([plan, *(f"{value:.4f}" for value in found)])
    header_of_times = [
        "plan",
        "ours, compiled (ms)",
        "ours, not compiled (ms)",
        "nnU-Net, compiled (ms)",
        "nnU-Net / ours, compiled",
        "nnU-Net / ours, not compiled",
        "memory of the three (GB)",
    ]
    header_of_losses = ["plan", "ours, compiled", "ours, not compiled", "nnU-Net again"]
    return (
        "One iteration: median (range) in turns.\n\n"
        f"{common.table(header_of_times, times)}\n\n"
        "Losses: the largest difference of means of ten from nnU-Net's, over the "
        f"first {len(outcomes[0].said[OURS]['losses'])} iterations.\n\n"
        f"{common.table(header_of_losses, losses)}"
    )


def describe(task: Task, plan: Mapping[str, Any]) -> str:
    patch = " x ".join(map(str, plan["patch_size"]))
    return f"{task.configuration}, {patch}, batch {plan['batch_size']}"


def report_slots(task: Task, found: Mapping[str, Mapping[int, float]]) -> str:
    rows = [
        [
            number,
            *(
                text
                for rates in found.values()
                for text in (
                    f"{rates[number]:.0f}",
                    f"{rates[number] / rates[SLOTS[0]]:.2f}",
                )
            ),
        ]
        for number in SLOTS
    ]
    header = ["trainings at once"]
    for name in ("compiled", "not compiled"):
        header += [f"{name}: iterations a second, together", "of one's"]
    return f"{task}:\n\n{common.table(header, rows)}"


def report_jobs(cores: int, jobs: Mapping[str, Mapping[str, float]]) -> str:
    """Seconds of fine-tunes, without imports, which the warm process has done."""
    header = [
        "batches",
        "ready (s)",
        "first epoch (s)",
        "last epoch (s)",
        "an iteration (ms)",
        "start (s)",
    ]
    rows = [
        [
            name,
            f"{job['ready']:.1f}",
            f"{job['first_epoch']:.1f}",
            f"{job['last_epoch']:.2f}",
            f"{1000 * job['iteration']:.1f}",
            f"{job['ready'] + job['first_epoch'] - job['last_epoch']:.1f}",
        ]
        for name, job in jobs.items()
    ]
    return f"On {cores} cores:\n\n{common.table(header, rows)}"


def main() -> None:
    from casesim.nnunet.files import write_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--settings",
        nargs="+",
        type=Task.parse,
        default=[Task("2d", None), Task("3d_fullres", None), Task("2d", 12)],
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=SHAPE, help="of a case (z, y, x)"
    )
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--losses", type=int, default=100, help="iterations compared")
    parser.add_argument("--cores", type=int, default=8, help="of the whole fine-tune")
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is timed"
    )
    arguments = parser.parse_args()
    tasks, number, parts = arguments.settings, arguments.iterations, arguments.parts
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder = Path(name)
        for task in tasks:
            write_json(folder / f"{task.name}.json", plans(task, arguments.shape))
        workers: dict[Task, dict[str, Worker]] = {}
        if "iterations" in parts:
            workers = start(tasks, folder, arguments.losses)
        chosen = {name: job for name, job in JOBS.items() if job.part in parts}
        if chosen:  # while they compile
            make_cases(folder, tasks[0], arguments.shape)
        if workers:
            body = report(measure(workers, number, arguments.turns))
            common.publish(title("Training", tasks), body, arguments.output)
        if chosen:
            jobs = {
                name: run_job(folder, tasks[0], arguments.cores, job)
                for name, job in chosen.items()
            }
            what = "A whole fine-tune"
            if "jobs" not in parts:
                what += " with loading processes"
            body = report_jobs(arguments.cores, jobs)
            common.publish(title(what, tasks[:1]), body, arguments.output)
        if "slots" in parts:
            bodies = [
                report_slots(
                    task,
                    {
                        side: measure_slots(folder, task, number, side)
                        for side in (OURS, PLAIN)
                    },
                )
                for task in tasks
            ]
            body = "\n\n".join(bodies)
            common.publish(title("Several trainings", tasks), body, arguments.output)


def title(what: str, tasks: Sequence[Task]) -> str:
    """Of a section, which another one with this title replaces."""
    names = dict.fromkeys(task.configuration for task in tasks)
    # Those of 2d have the name under which `benchmarks.speeds` looks for them.
    of = "" if "2d" in names else f" of {' and '.join(names)}"
    return f"{what}{of} on {common.device_name()}"


if __name__ == "__main__":
    main()
