"""Kill a running study at random: whom, how and when, all from one seed."""

import base64
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workflow.conftest import Checkout, processes, send

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# Where a study can be before it is killed: what is not there yet, below `results`.
STAGES: dict[str, tuple[str, ...]] = {
    "nothing is done": ("*",),
    "cases are imported": ("nnunet/preprocessed", "models", "scores", "similarity"),
    "the base model is trained": ("models/finetuned", "scores", "similarity"),
    "half of the models are fine-tuned": (
        "models/finetuned/*[3-9]",
        "scores/*/*",
        "similarity",
    ),
    "the matrix is there": ("models/retrained", "scores/retrained", "pruning"),
}
_SECONDS_TO_WAIT = 900.0
# For Snakemake to note what has been written.
_SECONDS_TO_BE_NOTED = 5.0


def parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])


def warm_processes(folder: Path) -> tuple[list[int], list[int]]:
    """Those that fork, and those that do the jobs."""
    found = processes("casesim.processes.warm_server", str(folder))
    children = [pid for pid in found if parent(pid) in found]
    return [pid for pid in found if pid not in children], children


def living(folder: Path, running: "subprocess.Popen[bytes]") -> dict[str, list[int]]:
    """The processes of a run, by what they are."""
    predictors = processes("--serve", str(folder))
    warm, jobs = warm_processes(folder)
    return {
        "client": [
            pid
            for pid in processes("predict.py", "--model", str(folder))
            if pid not in predictors
        ],
        "script": processes(".snakemake/scripts", str(folder)),
        "predictor": predictors,
        "trainer": jobs,
        "warm process": warm,
        "Snakemake": [running.pid] if running.poll() is None else [],
    }


def everyone(folder: Path, running: "subprocess.Popen[bytes]") -> list[int]:
    """All processes of a run."""
    found = {pid for pids in living(folder, running).values() for pid in pids}
    return sorted(found | set(processes(str(folder))) - {os.getpid()})


@dataclass
class Kills:
    """Kills spread over the runs of one study; `finish` lets it come to its end.

    Each kill comes when up to `most_jobs` more jobs have begun.
    """

    checkout: Checkout
    targets: tuple[str, ...]
    seed: int
    most_jobs: int = 12
    done: list[tuple[str, str, int]] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        # Cells that were there some time before a kill; of them, those that Snakemake
        # had noted as complete.
        self._written: dict[str, tuple[int, int]] = {}
        self._noted: dict[str, tuple[int, int]] = {}

    def cells(self) -> dict[str, tuple[int, int]]:
        """The scores that are there, and which file each of them is."""
        found = self.checkout.path("results/scores").glob("**/*.json")
        return {
            str(path): (status.st_ino, status.st_mtime_ns)
            for path in found
            if (status := path.stat())
        }

    def logs(self) -> int:
        """How far a study is: jobs that have begun."""
        return sum(1 for _ in self.checkout.path("logs").glob("**/*.log"))

    def run(self, number: int, per_start: int = 3) -> None:
        """Start the study and kill, again and again, until `number` kills are done.

        Ends early when the study is at its end: the caller starts another.
        """
        while len(self.done) < number:
            running = self.checkout.start(*self.targets)
            self.starts += 1
            try:
                for _ in range(self._random.randint(1, per_start)):
                    if len(self.done) == number or not self._kill(running):
                        break
                self._wait(running)
            finally:
                if running.poll() is None:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.wait()
            if running.returncode == 0:
                return

    def finish(self) -> str:
        """The same command without kills: returns what it said, and must succeed."""
        result = self.checkout.run(*self.targets)
        assert result.returncode == 0, f"{self}\n{result.stdout[-6000:]}"
        return result.stdout

    def _kill(self, running: "subprocess.Popen[bytes]") -> bool:
        """Wait for a random moment and kill someone; False when the run ends before."""
        jobs = self.logs() + self._random.randint(0, self.most_jobs)
        later = self._random.random()
        if not self._until(running, lambda: self.logs() >= jobs, 20.0):
            return False
        time.sleep(later)
        known = living(self.checkout.folder, running)
        kinds = [kind for kind, pids in known.items() if pids]
        if running.poll() is not None or not kinds:
            return False
        kind, number = self._random.choice(kinds), self._random.choice(SIGNALS)
        before, now = self.cells(), time.time_ns()
        pid = self._random.choice(known[kind])
        send(number, [pid])
        self.done.append((kind, number.name, self.logs()))
        unfinished = self._unfinished()
        for path, file in before.items():
            if now - file[1] > _SECONDS_TO_BE_NOTED * 1e9:
                self._written[path] = file
                if path not in unfinished:
                    self._noted[path] = file
        if kind == "Snakemake" and number == signal.SIGTERM:
            # It waits for its jobs, and so do we.
            return False
        return running.poll() is None

    def _unfinished(self) -> set[str]:
        """Outputs of jobs that Snakemake has begun and not noted as complete."""
        folder = self.checkout.path(".snakemake/incomplete")
        names = [path.name for path in folder.rglob("*") if path.is_file()]
        found = set()
        for name in names:
            with suppress(ValueError):
                text = base64.b64decode(name.removeprefix("@"), altchars=b"-_")
                found.add(str(self.checkout.path(text.decode(errors="replace"))))
        return found

    def computed_again(self) -> tuple[list[str], list[str]]:
        """Cells that were written before a kill and anew after it; those of them that
        Snakemake had noted, and which are lost."""
        after = self.cells()
        again = [path for path, file in self._written.items() if after[path] != file]
        lost = [path for path, file in self._noted.items() if after[path] != file]
        return again, lost

    @staticmethod
    def _until(
        running: "subprocess.Popen[bytes]", happens: Callable[[], bool], seconds: float
    ) -> bool:
        deadline = time.monotonic() + seconds
        while not happens() and time.monotonic() < deadline:
            if running.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    @staticmethod
    def _wait(running: "subprocess.Popen[bytes]") -> None:
        running.wait(_SECONDS_TO_WAIT)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.starts} starts"]
        lines += [f"  {kind} {how} after {jobs} jobs" for kind, how, jobs in self.done]
        return "\n".join(lines)


def go_back(checkout: Checkout, stage: str) -> None:
    """Take from a finished study all that is done after a stage."""
    results = checkout.path("results")
    for pattern in STAGES[stage]:
        for path in list(results.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def seeds(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1
