"""A command from its start to its end: how long it takes, and how much memory."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS_BETWEEN_SAMPLES = 0.5


@dataclass(frozen=True)
class Usage:
    """Wall time of a command, and peak memory of its processes together."""

    seconds: float
    megabytes: float


def run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Usage:
    """Run a command to its end in a session of its own, and watch its memory."""
    log = folder / "benchmark.log"
    peak = 0.0
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(_SECONDS_BETWEEN_SAMPLES):
                peak = max(peak, memory_of_session(process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            status = process.wait()
            seconds = time.perf_counter() - started
        finally:
            ended.set()
            watching.join()
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return Usage(seconds, peak)


def memory_of_session(session: int) -> float:
    """Megabytes of all processes of a session, shared pages counted once.

    The resident predictor is not a child of Snakemake, but of its session.
    """
    kilobytes = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != session:
                continue
            text = (entry / "smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024
