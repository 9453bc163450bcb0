"""Who computes what, seen from outside: the processes of SLURM jobs, sampled."""

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from workflow.conftest import processes

from .cluster import job_environment

# What a process's command line contains, by what it does.
KINDS = {
    "predictor": "--serve",
    "train_base": "train_base.py",
    "finetune": "finetune.py",
    "retrain": "retrain.py",
}


@dataclass(frozen=True)
class Seen:
    """A process of a job step, with what SLURM has put into its environment."""

    kind: str
    pid: int
    job: str
    node: str
    gpus: str


class Watch:
    """Looks a few times a second, while in the `with` block."""

    def __init__(self, folder: Path) -> None:
        self.seen: set[Seen] = set()
        self._folder = str(folder)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.3):
            for kind, word in KINDS.items():
                for pid in processes(word, self._folder):
                    environment = job_environment(pid)
                    if "SLURM_JOB_ID" in environment:
                        self.seen.add(
                            Seen(
                                kind,
                                pid,
                                environment["SLURM_JOB_ID"],
                                environment.get("SLURMD_NODENAME", ""),
                                environment.get("CUDA_VISIBLE_DEVICES", ""),
                            )
                        )


def left_over(jobs: set[str]) -> list[int]:
    """Processes that still carry the number of one of these jobs."""
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit()
        and job_environment(int(path.name)).get("SLURM_JOB_ID") in jobs
    ]
