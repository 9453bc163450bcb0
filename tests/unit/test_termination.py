"""What SIGTERM to Snakemake alone does, and says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from unit.processes.hosts import SECONDS, is_alive, wait_until

from casesim import termination

SCRIPTS = str(Path(termination.__file__).parents[1])

# Like Snakemake: its handler takes a lock that the main thread often holds, and its
# jobs run in a shell.
SNAKEMAKE = f"""
import os, signal, subprocess, sys, threading, time
sys.path.insert(0, {SCRIPTS!r})
from casesim import termination
termination._SECONDS_OF_ONE_SIGNAL = float(sys.argv[1])
lock = threading.Lock()
asked = threading.Event()
def exit_gracefully(*_):
    with lock:
        asked.set()
signal.signal(signal.SIGTERM, exit_gracefully)
termination.explain(lambda text: print(text, flush=True))
termination.explain(print)  # a second time changes nothing
job = subprocess.Popen(["bash", "-c", "sleep 600; true"])
print("job", job.pid, flush=True)
while not asked.is_set():
    with lock:
        time.sleep(0.05)
print("graceful", flush=True)
print("status", job.wait(), flush=True)
"""


@pytest.fixture
def snakemake(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", SNAKEMAKE, str(request.param)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def lines(process: "subprocess.Popen[str]", number: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(number)]


@pytest.mark.parametrize("snakemake", [0.2], indirect=True)
def test_first_is_explained_and_second_ends_the_jobs(
    snakemake: "subprocess.Popen[str]",
) -> None:
    (job,) = lines(snakemake, 1)
    pid = int(job.split()[1])
    snakemake.terminate()
    # In whichever order the two threads come to say it.
    told = lines(snakemake, 2)
    assert "graceful" in told
    (message,) = set(told) - {"graceful"}
    assert "1 that run are waited for" in message
    assert f"(kill {snakemake.pid})" in message
    assert is_alive(pid)
    time.sleep(0.3)
    snakemake.terminate()
    assert "jobs are ended" in lines(snakemake, 1)[0]
    assert lines(snakemake, 1) == [f"status {-signal.SIGTERM}"]
    assert snakemake.wait(SECONDS) == 0
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("snakemake", [60.0], indirect=True)
def test_signals_that_come_together_count_as_one(
    snakemake: "subprocess.Popen[str]",
) -> None:
    (job,) = lines(snakemake, 1)
    for _ in range(3):
        snakemake.terminate()
    lines(snakemake, 2)
    time.sleep(0.2)
    assert is_alive(int(job.split()[1]))
    assert snakemake.poll() is None


def test_without_a_handler_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        termination.explain(print)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
