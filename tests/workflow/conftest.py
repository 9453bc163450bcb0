"""Checkouts of the workflow in temporary folders."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import forked

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("CASESIM_SHARED", ROOT.parent / "shared"))
WORKFLOW = ["Snakefile", "rules", "envs", "config", "profiles", "workflow_scripts"]

# As small as it can be: six train cases, one of them with wrong labels, two held out.
SMALL: dict[str, Any] = {
    "cohort": {
        "pool": 6,
        "train_cases": 6,
        "held_out": 2,
        "phantom": {
            "shape": [16, 40, 40],
            "defects": {"swapped_labels": 2, "shifted_label": 0, "other_patient": 0},
            "controls": {"no_enhancement": 0},
        },
    },
    "training": {
        "checkpoint_minutes": 0,
        "base": {"epochs": 4, "iterations_per_epoch": 10},
        "finetune": {"epochs": 3, "iterations_per_epoch": 5},
    },
    "augmentation": {"copies": 2},
    "clusters": {"max_removed_share": 0.4},
    "stability": {"refits": 2},
    "pruning": {"random_arms": 1},
}


@dataclass
class Checkout:
    """A copy of the workflow in a folder of its own, as a user has it."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    is_there: bool = False

    def __post_init__(self) -> None:
        if self.is_there:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in WORKFLOW:
            source, target = ROOT / name, self.folder / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)
        (self.folder / "test.yaml").write_text(yaml.safe_dump(self.config))

    def arguments(self, *arguments: str, configs: Sequence[str] = ()) -> list[str]:
        """What Snakemake is given: `configs` are laid over the checkout's own config,
        which is laid over the demo's."""
        own = ["config/config.yaml", "test.yaml"] if self.config else []
        files = [*own, *configs]
        given = ["--configfile", *files] if files else []
        # Several workers test at a time, and each core more has a predictor to start.
        return ["--cores", "1", *arguments, *given]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *self.arguments(*arguments)]

    def run(
        self, *arguments: str, configs: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end; stdout and stderr together."""
        return forked.run(self.arguments(*arguments, configs=configs), self.folder)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a process group of its own."""
        with (self.folder / "started.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def take_results(self, other: "Checkout") -> None:
        """Copy what is done in another checkout, with the times of the files.

        What belongs to a run there is left out: another worker may look at that folder.
        """
        of_a_run = shutil.ignore_patterns("locks", "scripts", "casesim")
        for name in ("results", ".snakemake"):
            source, target = other.path(name), self.path(name)
            shutil.copytree(source, target, symlinks=True, ignore=of_a_run)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def scripts(self) -> list[Path]:
        """The scripts of all stages, without the packages beside them."""
        packages = ("casesim", "snakemake_logger_plugin_casesim")
        found = self.path("workflow_scripts").glob("*/*.py")
        return [path for path in found if path.parent.name not in packages]


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


def processes(*words: str) -> list[int]:
    """Processes whose command line and working directory contain all of the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            line += " " + str((entry / "cwd").readlink())
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(entry.name))
    return found


def trainings(folder: Path) -> list[int]:
    """The warm processes of a checkout, and their children, which train."""
    return processes("casesim.processes.warm_server", str(folder))


def wait_for(condition: Any, seconds: float = 240) -> Any:
    """Poll until the condition holds; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to those of the processes that have not ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
