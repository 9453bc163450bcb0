"""Kill a running study at random: whom, how and when, all from one seed."""

import base64
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workflow.conftest import Checkout, processes

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
# For a process of the chosen kind to be there.
_SECONDS_TO_FIND = 10.0
# From finding it to killing it at most: a client's life is short.
KINDS = {
    "client": 0.05,
    "script": 0.5,
    "predictor": 1.0,
    "trainer": 1.0,
    "warm process": 1.0,
    "Snakemake": 2.0,
}
_BEGUN = re.compile(r"^(?:local)?rule \w+:$", re.MULTILINE)


def parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def begun(checkout: Checkout) -> int:
    """How many jobs have begun, in all runs of a study together."""
    logs = checkout.path(".snakemake/log").glob("*.log")
    return sum(len(_BEGUN.findall(log.read_text(errors="replace"))) for log in logs)


def has_begun(
    checkout: Checkout, running: "subprocess.Popen[bytes]", jobs: int
) -> bool:
    """Whether so many jobs have begun, or the run is at its end."""
    return begun(checkout) >= jobs or running.poll() is not None


def warm_processes(folder: Path) -> tuple[list[int], list[int]]:
    """Those that fork, and those that do the jobs."""
    found = processes("casesim.processes.warm_server", str(folder))
    children = [pid for pid in found if parent(pid) in found]
    return [pid for pid in found if pid not in children], children


def living(kind: str, folder: Path, running: "subprocess.Popen[bytes]") -> list[int]:
    """The processes of a run that are of this kind."""
    if kind == "client":
        found = processes("predict.py", "--model", str(folder))
        return [pid for pid in found if "--serve" not in command(pid)]
    if kind == "script":
        return processes(".snakemake/scripts", str(folder))
    if kind == "predictor":
        return processes("--serve", str(folder))
    if kind == "Snakemake":
        return [running.pid] if running.poll() is None else []
    warm, jobs = warm_processes(folder)
    return jobs if kind == "trainer" else warm


def everyone(folder: Path, running: "subprocess.Popen[bytes]") -> list[int]:
    """All processes of a run."""
    found = {pid for kind in KINDS for pid in living(kind, folder, running)}
    return sorted(found | set(processes(str(folder))) - {os.getpid()})


@dataclass
class Kills:
    """Kills spread over the runs of one study; `finish` lets it come to its end.

    Each kill comes when up to `most_jobs` more jobs have begun. Whom it meets is drawn
    first, so that those who live for a moment only are met as often as the others.
    """

    checkout: Checkout
    targets: tuple[str, ...]
    seed: int
    most_jobs: int = 4
    kinds: tuple[str, ...] = tuple(KINDS)
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
        found = {}
        for path in self.checkout.path("results/scores").glob("**/*.json"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found[str(path)] = (status.st_ino, status.st_mtime_ns)
        return found

    def run(self, number: int) -> None:
        """Start the study and kill, again and again, until `number` kills are done.

        Ends early when the study is at its end: the caller starts another.
        """
        while len(self.done) < number:
            running = self.checkout.start(*self.targets)
            self.starts += 1
            try:
                while len(self.done) < number and running.poll() is None:
                    self._kill(running)
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

    def _kill(self, running: "subprocess.Popen[bytes]") -> None:
        """Wait for a random moment and kill someone, unless nobody of his kind comes or
        the run ends before."""
        jobs = begun(self.checkout) + self._random.randint(0, self.most_jobs)
        kind, number = self._random.choice(self.kinds), self._random.choice(SIGNALS)
        later = self._random.uniform(0, KINDS[kind])
        self._until(running, lambda: begun(self.checkout) >= jobs, 20.0)

        def found() -> list[int]:
            return living(kind, self.checkout.folder, running)

        self._until(running, lambda: bool(found()), _SECONDS_TO_FIND)
        time.sleep(later)
        pids = found()
        if running.poll() is not None or not pids:
            return
        before, now = self.cells(), time.time_ns()
        try:
            os.kill(self._random.choice(pids), number)
        except ProcessLookupError:
            return
        self.done.append((kind, number.name, begun(self.checkout)))
        unfinished = self._unfinished()
        for path, file in before.items():
            if now - file[1] > _SECONDS_TO_BE_NOTED * 1e9:
                self._written[path] = file
                if path not in unfinished:
                    self._noted[path] = file
        if kind == "Snakemake":
            # At SIGTERM it waits for its jobs, and so do we.
            self._wait(running)

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
    ) -> None:
        """Wait until that happens, the time is over or the run at its end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and running.poll() is None and not happens():
            time.sleep(0.02)

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
