"""A training begins beside a predictor that is at work, again and again: none stalls.

One run on a GPU stood still just then. The device here is a stand-in on the CPU: locks,
queues, the release of memory and the processes are those of a GPU, only the network
is computed elsewhere. In full a hundred rounds, with both cores kept busy by others.
Who waits for a minute ends with the stacks of all its threads, which the failure shows.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from unit.conftest import POOL, TinyCohort
from unit.processes.hosts import short_folder
from unit.processes.predictors import SCRIPTS, Host

from benchmarks.busy import load

from .conftest import FULL, SEED

ROUNDS = int(os.environ.get("RELIABILITY_ROUNDS", "100")) if FULL else 2
LOAD = int(os.environ.get("RELIABILITY_LOAD", "4"))
LIMIT = 60.0
# Beyond the limit, in which whoever stands still writes its stacks.
GRACE = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no warm process")

TRAINING = """
import json, sys
sys.path.insert(0, {scripts!r})
from casesim.files import logged
from casesim.processes import warm

with logged(sys.argv[1]):
    warm.run("casesim.training.jobs:train", json.loads(sys.argv[2]))
"""


class Rounds(Host):
    """Clients of the predictor, and trainings that take its device from it."""

    def __init__(self, folder: Path, cohort: TinyCohort) -> None:
        super().__init__(folder)
        self.pretend_to_have_a_gpu()
        self.environment |= {
            "CASESIM_STALL_SECONDS": str(LIMIT),
            "CASESIM_ANSWER_SECONDS": str(LIMIT),
        }
        self.cohort = cohort
        # A copy, because an edit of the package in the meantime starts other servers.
        scripts = folder / "scripts"
        shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        self.program = scripts / "inference/predict.py"
        self.training = folder / "train.py"
        self.training.write_text(TRAINING.format(scripts=str(scripts)))

    def command(self, model: str = "base", case: str = "", *more: str) -> list[str]:
        return [
            *(sys.executable, "-S", "-E", str(self.program)),
            *("--model", model, "--case", case),
            *("--checkpoint", f"{model}/fold_all/checkpoint_final.pth"),
            *("--data", f"{self.cohort.stem(case)}.b2nd"),
            *("--label", str(self.cohort.label(case))),
            *("--prediction", f"{model}-{case}.nii.gz"),
            *("--score", f"{model}-{case}.json", "--threads", "1", "--gpu", "1"),
            *("--labels", "edema=1;core=2;rim=3", "--regions", "WT=1,2,3", *more),
        ]

    def train(self, model: str, seed: int) -> subprocess.Popen[bytes]:
        schedule = {"epochs": 2, "iterations_per_epoch": 3, "initial_lr": 0.01}
        values: dict[str, Any] = {
            "cases": [str(stem) for stem in self.cohort.stems],
            "plans": str(self.cohort.plans),
            "dataset": str(self.cohort.dataset),
            "model": model,
            "training": {
                **{"configuration": "2d", "schedule": schedule, "seed": seed},
                "storage": "float32",
            },
            "settings": {"checkpoint_minutes": 0, "validate_every": 0},
            **{"threads": 1, "gpu": 1, "memory_mb": 1000},
        }
        log = f"{model}.log"
        return self.begin([sys.executable, str(self.training), log, json.dumps(values)])

    def one_round(self, seed: int) -> float:
        """Cells, a training in their midst, its cells; seconds until all have ended."""
        began = time.monotonic()
        jobs: list[subprocess.Popen[Any]] = [self.start("base", case) for case in POOL]
        jobs.append(self.train("retrained", seed))
        jobs += [self.start("base", case) for case in POOL]
        for job in jobs:
            self.finish(job, began)
        assert "model written" in (self.folder / "retrained.log").read_text()
        for case in POOL:
            score = self.folder / f"retrained-{case}.json"
            score.unlink(missing_ok=True)
            self.finish(self.start("retrained", case), began)
            assert json.loads(score.read_text())["model"] == "retrained"
        return time.monotonic() - began

    def finish(self, job: subprocess.Popen[Any], began: float) -> None:
        """Wait for the end of a job, which must be a good one."""
        left = began + LIMIT + GRACE - time.monotonic()
        try:
            out, err = job.communicate(timeout=max(1.0, left))
        except subprocess.TimeoutExpired:
            pytest.fail(f"stands still: {job.args!r}\n{self.logs()}")
        assert job.returncode == 0, f"{job.args!r}\n{out}\n{err}\n{self.logs()}"

    def logs(self) -> str:
        files = [*self.folder.glob("*.log"), *sorted(self.sockets.glob("*.log"))]
        return "\n".join(f"{f.name}:\n{f.read_text()}" for f in files if f.exists())


@pytest.fixture
def host(tiny_cohort: TinyCohort) -> Iterator[Rounds]:
    with short_folder() as folder, closing(Rounds(folder, tiny_cohort)) as host:
        host.finish(host.train("base", SEED), time.monotonic())
        yield host


@pytest.mark.timeout(6 * 3600 if FULL else 600)
def test_a_training_beside_a_busy_predictor(host: Rounds, count: Counter[str]) -> None:
    seconds = []
    with load(LOAD) if FULL else nullcontext():
        for number in range(ROUNDS):
            seconds.append(host.one_round(1000 * SEED + number))
            count["rounds of cells, a training and cells on one device"] += 1
    # One predictor and one warm process have done it all.
    assert len(host.servers()) == 2
    print(f"slowest round: {max(seconds):.1f} s")
