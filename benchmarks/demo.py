"""The demo from start to end: how long it takes here, and would take on more cores.

    python -m benchmarks.demo [TARGET ...] [--cores N] [--work FOLDER] [--on 1 2 4 8 16]
        [--output docs/benchmarks/demo.md]
    python -m benchmarks.demo --of FOLDER [--on 1 2 4 8 16] [--output ...]

Runs the embedded demo without a GPU in a checkout of its own, and reads the start and
the end of every job from what Snakemake notes of it (`.snakemake/metadata`). With
`--work` it goes on in a folder where earlier targets were made (`models`, say): in
pieces, where the machine is needed by others. `--of` runs nothing, and simulates with
the times of a run that somebody else has made.

Other numbers of cores are **simulated**: a job begins when its inputs are there, one of
the cores is free and Snakemake has come to start it, one job after the other
(`_DISPATCH`); those that may have eight threads take all cores and are not sped up.
Jobs last their processor's share of the time that they took here, so that what else ran
on the machine does not count. That the same simulation, with the times as they were,
gives the time of the real run on as many cores is printed, too.
"""

import argparse
import base64
import ctypes
import heapq
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import setting as common

# Starting a job, as docs/benchmarks/scale.md has it.
_DISPATCH = 0.033
_ALL_CORES = {"check_cohort", "plan", "channels", "fit_similarity"}
_PR_SET_CHILD_SUBREAPER = 36
_RUNS = "runs.json"


@dataclass(frozen=True)
class Job:
    """What Snakemake notes of a job; times are in seconds."""

    rule: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Run:
    """One start of Snakemake: seconds, and those of the processors, of all its
    processes; how much else the machine had to do (load before, without this run)."""

    target: str
    cores: int
    wall: float
    processor: float
    load: float


def read_jobs(folder: Path) -> list[Job]:
    """The finished jobs of a run, by their beginning."""
    found: dict[tuple[str, ...], tuple[dict, set[str]]] = {}
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if not path.is_file():
            continue
        record = json.loads(path.read_text())
        name = str(path.relative_to(folder / ".snakemake/metadata")).replace("@", "")
        output = base64.urlsafe_b64decode(name.replace("/", "")).decode()
        key = (record["rule"], *record["log"], str(record["job_hash"]))
        found.setdefault(key, (record, set()))[1].add(output)
    jobs = [
        Job(
            record["rule"],
            frozenset(record["input"]),
            frozenset(outputs),
            record["starttime"],
            record["endtime"],
        )
        for record, outputs in found.values()
    ]
    return sorted(jobs, key=lambda job: job.begin)


def simulate(
    jobs: Sequence[Job], cores: int, factor: float = 1.0, dispatch: float = _DISPATCH
) -> float:
    """Seconds from the first start to the last end on a number of cores.

    Of jobs that are ready, the one that began first here begins first. Each lasts its
    seconds times `factor`.
    """
    maker = {name: job for job in jobs for name in job.outputs}
    waiting: dict[Job, set[Job]] = {}
    waits_for: dict[Job, list[Job]] = {job: [] for job in jobs}
    for job in jobs:
        before = {maker[name] for name in job.inputs if name in maker} - {job}
        waiting[job] = before
        for other in before:
            waits_for[other].append(job)
    order = {job: number for number, job in enumerate(jobs)}
    ready = [order[job] for job in jobs if not waiting[job]]
    heapq.heapify(ready)
    running: list[tuple[float, int, int]] = []
    now, free, done = 0.0, cores, 0
    while ready or running:
        while ready:
            number = ready[0]
            needed = cores if jobs[number].rule in _ALL_CORES else 1
            if needed > free:
                break
            heapq.heappop(ready)
            free -= needed
            now += dispatch
            heapq.heappush(
                running, (now + factor * jobs[number].seconds, number, needed)
            )
        end, number, needed = heapq.heappop(running)
        now, free, done = max(now, end), free + needed, done + 1
        for follower in waits_for[jobs[number]]:
            waiting[follower].discard(jobs[number])
            if not waiting[follower]:
                heapq.heappush(ready, order[follower])
    if done < len(jobs):
        raise ValueError("jobs wait for each other in a circle")
    return now


@contextmanager
def every_process_counted() -> Iterator[None]:
    """Processes that lose their parent become children of this one: the warm process
    and the predictors, whose times would else be nobody's."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def run(folder: Path, targets: Sequence[str], cores: int) -> Run:
    """Run Snakemake up to some targets; no GPU is used."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores)]
    command += ["--resources", "gpu=1", "--", *targets]
    load, processor = os.getloadavg()[0], 0.0
    began, ended = time.monotonic(), 0.0
    with every_process_counted():
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        main = subprocess.Popen(command, cwd=folder, env=environment)
        status = 0
        # All children, until none is left: they end soon after the run.
        while True:
            try:
                pid, result, used = os.wait3(0)
            except ChildProcessError:
                break
            processor += used.ru_utime + used.ru_stime
            if pid == main.pid:
                ended, status = time.monotonic(), result
    if status:
        sys.exit(f"The demo failed; its files are in {folder}.")
    return Run(targets[-1], cores, ended - began, processor, load)


def report(runs: Sequence[Run], jobs: Sequence[Job], numbers: Iterable[int]) -> str:
    """What was measured, and what follows for other numbers of cores."""
    wall = sum(each.wall for each in runs)
    processor = sum(each.processor for each in runs)
    of_jobs = sum(job.seconds for job in jobs)
    span = _span(jobs, len(runs))
    around = (wall - span) / len(runs)
    factor = min(1.0, processor / (of_jobs + len(runs) * around))
    cores = {each.cores for each in runs}
    loads = [each.load for each in runs]
    rows = []
    for number in numbers:
        there = around + simulate(jobs, number, factor)
        rows.append([number, f"{there:.0f}", f"{there / 60:.1f}"])
    check = ""
    if len(runs) == 1 and len(cores) == 1:
        again = around + simulate(jobs, min(cores))
        check = (
            f" The simulation with the times as they were gives {again:.0f} s for it."
        )
    names = ", ".join(each.target for each in runs)
    return (
        f"Measured: {len(jobs)} jobs ({names}) on {min(cores)} cores, "
        f"{wall:.0f} s, of which {around:.1f} s of each start before and after the "
        f"jobs; {processor:.0f} s of processor time in all processes. Load of the "
        f"machine before: {min(loads):.1f} to {max(loads):.1f}, so that a second of a "
        f"job was {factor:.2f} s of a processor.{check}\n\n"
        "**Simulated**, on cores with nothing else to do:\n\n"
        + common.table(["cores", "seconds", "minutes"], rows)
    )


def report_of(jobs: Sequence[Job], threads: str, numbers: Iterable[int]) -> str:
    """What follows from a finished run for numbers of cores, times as they were."""
    by_rule: dict[str, list[float]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job.seconds)
    most = sorted(by_rule.items(), key=lambda item: -sum(item[1]))[:6]
    parts = [
        [rule, len(seconds), f"{min(seconds):.1f} to {max(seconds):.1f}"]
        for rule, seconds in most
    ]
    rows = [[number, f"{simulate(jobs, number):.0f}"] for number in numbers]
    return (
        f"Job times of a finished run of {len(jobs)} jobs, as they were, whatever else "
        f"ran beside it; its trainings had {threads} each. From its first job to its "
        f"last it took {_span(jobs, 1):.0f} s.\n\n"
        f"{common.table(['jobs that took the most', 'number', 's each'], parts)}\n\n"
        "**Simulated**, from the first job to the last:\n\n"
        + common.table(["cores", "seconds"], rows)
    )


def threads_of_trainings(folder: Path) -> str:
    """`2 threads`, as the log of the base model has it."""
    found = re.search(r"\d+ threads", (folder / "logs/train_base.log").read_text())
    return found[0] if found else "unknown threads"


def _span(jobs: Sequence[Job], starts: int) -> float:
    """Seconds in which jobs ran, without the longest pauses, between the starts."""
    pauses, end = [], jobs[0].end
    for job in jobs[1:]:
        pauses.append(max(0.0, job.begin - end))
        end = max(end, job.end)
    longest = sorted(pauses)[len(pauses) - (starts - 1) :] if starts > 1 else []
    return end - jobs[0].begin - sum(longest)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", default=["all"])
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path)
    parser.add_argument("--of", type=Path, help="a finished run, to simulate with")
    parser.add_argument("--on", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.of:
        threads = threads_of_trainings(arguments.of)
        text = report_of(read_jobs(arguments.of), threads, arguments.on)
        common.publish("The demo, simulated from a run", text, arguments.output)
        return
    with tempfile.TemporaryDirectory(prefix="casesim-demo-") as temporary:
        folder = arguments.work or Path(temporary, "demo")
        if not (folder / "Snakefile").exists():
            common.copy_workflow(folder)
        notes = folder / _RUNS
        runs = (
            [Run(**r) for r in json.loads(notes.read_text())] if notes.exists() else []
        )
        runs.append(run(folder, arguments.targets, arguments.cores))
        notes.write_text(json.dumps([asdict(each) for each in runs]))
        text = report(runs, read_jobs(folder), arguments.on)
        common.publish("The demo, without a GPU", text, arguments.output)


if __name__ == "__main__":
    main()
