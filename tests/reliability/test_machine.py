"""What happens to the machine: its power, its clock, its /tmp.

After each the same command finishes, with the result of an undisturbed run.
The sample of each day makes one row of a finished run again; a clock that is set back
is among the edits of `workflow/test_changes.py`, too.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from workflow.conftest import Checkout, succeeded, wait_for

from .conftest import FULL, MATRIX, SEED, TARGETS, TINY, tables
from .kills import STAGES, Kills, everyone, go_back
from .power import Journal, cut
from .test_kills import note

CUTS = int(os.environ.get("RELIABILITY_CUTS", "10"))
HOUR = 3600

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def kill_all(checkout: Checkout, running: "subprocess.Popen[bytes]") -> None:
    """All processes of a study at once, as when the power fails."""
    deadline = time.monotonic() + 20
    while pids := everyone(checkout.folder, running):
        assert time.monotonic() < deadline, pids
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.poll()
        time.sleep(0.02)
    running.wait()


def shift(checkout: Checkout, seconds: float) -> int:
    """Give all that a study has made another date."""
    number = 0
    for name in ("results", ".snakemake"):
        for path in checkout.path(name).rglob("*"):
            status = path.lstat()
            times = (status.st_atime + seconds, status.st_mtime + seconds)
            os.utime(path, times, follow_symlinks=False)
            number += path.is_file()
    return number


def test_a_kill_and_a_power_cut(
    finished: Checkout,
    tmp_path: Path,
    count: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sample: one row is made again, and disturbed twice."""
    checkout = Checkout(tmp_path / "study", finished.config)
    checkout.take_results(finished)
    row = checkout.path("results/scores/finetuned/phantom_002")
    shutil.rmtree(row)
    shutil.rmtree(checkout.path("results/similarity"))
    row.with_name("phantom_002.tsv").unlink()
    journal = Journal(tmp_path / "journal")
    with monkeypatch.context() as patch:
        for name, value in journal.environment.items():
            patch.setenv(name, value)
        kills = Kills(checkout, (MATRIX,), SEED, most_jobs=2)
        kills.run(1)
        began = time.time()
        running = checkout.start(MATRIX)
        try:
            wait_for(lambda: len(list(row.glob("*.json"))) > 2 or running.poll() == 0)
        finally:
            kill_all(checkout, running)
    unsynced = [path for path in journal.unsynced(checkout) if row in path.parents]
    assert not unsynced, "a cell had its name before it was on the disk"
    lost = cut(checkout, journal, random.Random(SEED), began)
    count["files lost or cut off by a power cut"] += sum(lost.values())
    succeeded(checkout.run(MATRIX))
    count["power cuts survived"] += 1
    note(kills, count)
    assert checkout.path(MATRIX).read_bytes() == finished.path(MATRIX).read_bytes()


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(6 * 3600)
def test_power_cuts_from_beginning_to_end(
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(SEED)
    checkout = Checkout(tmp_path / "study", TINY)
    journal = Journal(tmp_path / "journal")
    for name, value in journal.environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(CUTS):
        began = time.time()
        running = checkout.start(*TARGETS)
        seconds = draw.uniform(8, 60)
        try:
            running.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            kill_all(checkout, running)
        lost = cut(checkout, journal, draw, began)
        print(f"Cut after {seconds:.0f} s: {lost}")
        count["power cuts survived"] += 1
        count["files lost or cut off by a power cut"] += sum(lost.values())
    succeeded(checkout.run(*TARGETS))
    assert tables(checkout) == tables(undisturbed)
    # Whoever writes a result syncs it first; Snakemake writes the benchmarks itself.
    unsynced = [
        path
        for path in journal.unsynced(checkout)
        if path.is_relative_to(checkout.path("results"))
        and not path.is_relative_to(checkout.path("results/benchmarks"))
    ]
    assert not unsynced


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("stage", list(STAGES)[1:])
def test_clock_is_set_at_every_stage(
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
    stage: str,
    hours: int,
) -> None:
    """Back: what there is comes from the future; forward: it is older than it was."""
    checkout = Checkout(tmp_path / "study", TINY)
    checkout.take_results(undisturbed)
    go_back(checkout, stage)
    shift(checkout, hours * HOUR)
    succeeded(checkout.run(*TARGETS))
    count["clocks set back or forward"] += 1
    assert tables(checkout) == tables(undisturbed)


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
def test_tmp_is_emptied_again_and_again(
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Temporary files and sockets are gone at random moments of a run."""
    draw = random.Random(SEED)
    places = {name: tmp_path / name for name in ("TMPDIR", "XDG_RUNTIME_DIR")}
    # The path of a socket is short.
    short = Path(f"/tmp/cs-{os.getpid()}")
    places["XDG_RUNTIME_DIR"] = short
    for name, path in places.items():
        path.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(path))
    checkout = Checkout(tmp_path / "study", TINY)
    emptied = failed = 0
    try:
        for _ in range(20):
            running = checkout.start(*TARGETS)
            while running.poll() is None:
                time.sleep(draw.uniform(3, 15))
                for path in places.values():
                    for entry in list(path.iterdir()):
                        shutil.rmtree(entry, ignore_errors=True)
                        entry.unlink(missing_ok=True) if entry.is_file() else None
                emptied += 1
            if running.returncode == 0:
                break
            failed += 1
            print(checkout.path("started.log").read_text()[-3000:])
        else:
            pytest.fail("it does not get to its end")
    finally:
        shutil.rmtree(short, ignore_errors=True)
    count["times that /tmp was emptied"] += emptied
    count["starts that ended since /tmp was emptied"] += failed
    assert tables(checkout) == tables(undisturbed)
