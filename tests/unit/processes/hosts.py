"""What the tests of the processes beside the jobs share: a host of their own."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from casesim.process_table import process_information

SECONDS = 60.0
# What decides who shares a process with whom, and where.
_NOT_INHERITED = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "CASESIM_RESIDENT")


def wait_until(happens: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true value of `happens`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := happens()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    return process_information(pid) is not None


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder for sockets, whose paths are at most about 100 bytes long:
    not under pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Host:
    """A working directory, a folder for sockets, and processes that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets = folder / "casesim"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in _NOT_INHERITED
        } | {"XDG_RUNTIME_DIR": str(folder)}
        self._begun: list[subprocess.Popen[Any]] = []

    def begin(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process that `close` ends; options as `Popen`'s."""
        options = {"cwd": self.folder, "env": self.environment, **options}
        process = subprocess.Popen(command, **options)
        self._begun.append(process)
        return process

    def servers(self) -> set[int]:
        """The processes beside the jobs, from their logs; ended ones included."""
        logs = [path.read_text() for path in self.sockets.glob("*.log")]
        said = [re.match(r"Process (\d+): ", log) for log in logs]
        return {int(found[1]) for found in said if found}

    def close(self) -> None:
        """End all processes."""
        for process in self._begun:
            process.kill()
            process.communicate()
        for pid in filter(is_alive, self.servers()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
