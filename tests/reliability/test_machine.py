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
from functools import partial
from pathlib import Path

import pytest

from workflow.conftest import Checkout, succeeded, wait_for

from .conftest import FULL, MATRIX, SEED, TARGETS, TINY, tables
from .kills import STAGES, Kills, begun, everyone, has_begun
from .power import Journal, cut
from .test_kills import outcome

CUTS = 2
SECONDS_UNSYNCED = 5.0
TIMES_EMPTIED = 8
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


def shift(checkout: Checkout, seconds: float) -> None:
    """Give all that a study has made another date."""
    shifted = set()
    for name in ("results", ".snakemake"):
        for path in checkout.path(name).rglob("*"):
            status = path.lstat()
            # A file of two names has one date.
            if status.st_ino not in shifted:
                times = (status.st_atime + seconds, status.st_mtime + seconds)
                os.utime(path, times, follow_symlinks=False)
                shifted.add(status.st_ino)


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
        # Of another's death the run would come to its end, and leave nothing to cut.
        kills = Kills(checkout, (MATRIX,), SEED, most_jobs=2, kinds=("Snakemake",))
        kills.run(1)
        assert kills.done
        began = time.time()
        running = checkout.start(MATRIX)
        try:
            wait_for(lambda: len(list(row.glob("*.json"))) > 2 or running.poll() == 0)
        finally:
            kill_all(checkout, running)
    unsynced = [path for path in journal.unsynced(checkout) if row in path.parents]
    assert not unsynced, "a cell had its name before it was on the disk"
    lost = cut(checkout, journal, random.Random(SEED), began)
    succeeded(checkout.run(MATRIX))
    count.update(outcome(kills))
    count["power cuts survived"] += 1
    count["files lost or cut off by a power cut"] += sum(lost.values())
    assert checkout.path(MATRIX).read_bytes() == finished.path(MATRIX).read_bytes()


def stage_of(checkout: Checkout) -> str:
    """What of a study is done."""
    results = checkout.path("results")
    preprocessed = results.glob("nnunet/preprocessed/*/*_2d/*_seg.b2nd")
    if checkout.path(MATRIX).exists():
        return "the matrix is there"
    if len(list(results.glob("models/finetuned/*/plans.json"))) >= 2:
        return "half of the models are fine-tuned"
    if (results / "models/base/plans.json").exists():
        return "the base model is trained"
    # The held-out case comes last.
    if len(list(preprocessed)) >= TINY["cohort"]["pool"]:
        return "cases are imported"
    return "nothing is done"


def stands_at(
    checkout: Checkout, running: "subprocess.Popen[bytes]", stage: int
) -> bool:
    """Whether a stage is reached, by its number, or the run is at its end."""
    reached = list(STAGES).index(stage_of(checkout))
    return reached >= stage or running.poll() is not None


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
def test_power_cuts_at_every_stage(
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One study, in which the power fails in each stage, some time after its start.

    What was made well before that is on the disk, synced or not: the stages of a real
    study take longer than a file system waits.
    """
    draw, done = random.Random(SEED), Counter[str]()
    checkout = Checkout(tmp_path / "study", TINY)
    journal = Journal(tmp_path / "journal")
    for name, value in journal.environment.items():
        monkeypatch.setenv(name, value)
    stages = list(STAGES)
    for stage in [stage for stage in stages for _ in range(CUTS)]:
        began = time.time()
        running = checkout.start(*TARGETS)
        try:
            # After a cut a study may be back in the stage before.
            wait_for(
                partial(stands_at, checkout, running, stages.index(stage)), seconds=900
            )
            began = max(began, time.time() - SECONDS_UNSYNCED)
            enough = begun(checkout) + draw.randint(0, 6)
            wait_for(partial(has_begun, checkout, running, enough))
            time.sleep(draw.random())
            assert running.poll() is None, checkout.path("started.log").read_text()
            where = stage_of(checkout)
        finally:
            kill_all(checkout, running)
        lost = cut(checkout, journal, draw, began)
        print(f"Cut where {where}, after {begun(checkout)} jobs: {lost}")
        done["power cuts survived"] += 1
        done["files lost or cut off by a power cut"] += sum(lost.values())
    succeeded(checkout.run(*TARGETS))
    assert tables(checkout) == tables(undisturbed)
    # Whoever writes a result syncs it first; Snakemake writes the benchmarks itself.
    results = checkout.path("results")
    unsynced = [
        path
        for path in journal.unsynced(checkout)
        if results in path.parents
        and results / "benchmarks" not in path.parents
        # What was under way has not got its name yet.
        and not any(p.startswith(".") for p in path.relative_to(results).parts)
    ]
    assert not unsynced
    count.update(done)


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
def test_clock_is_set_back_at_every_stage(
    undisturbed: Checkout, tmp_path: Path, count: Counter[str]
) -> None:
    """What there is comes from the future. (One that is set forward makes it older, as
    it is after every pause.)"""
    checkout = Checkout(tmp_path / "study", TINY)
    for rule in ("preprocess_case", "train_base", "finetune"):
        succeeded(checkout.run(*TARGETS, "--until", rule))
        shift(checkout, HOUR)
    succeeded(checkout.run(MATRIX))
    shift(checkout, HOUR)
    succeeded(checkout.run(*TARGETS))
    assert tables(checkout) == tables(undisturbed)
    # What is done is not done again, whatever the clock says.
    shift(checkout, HOUR)
    assert "Nothing to be done" in succeeded(checkout.run(*TARGETS))
    count["clocks set back"] += 5


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
def test_tmp_is_emptied_again_and_again(
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Temporary files and sockets are gone at random moments of a run.

    Processes finish what they are at: nothing but what had just such a file open fails.
    """
    draw = random.Random(SEED)
    # The path of a socket is short.
    short = Path(f"/tmp/cs-{os.getpid()}")
    places = {"TMPDIR": tmp_path / "tmp", "XDG_RUNTIME_DIR": short}
    for name, path in places.items():
        path.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(path))
    checkout = Checkout(tmp_path / "study", TINY)
    emptied = failed = 0
    try:
        for _ in range(2 * TIMES_EMPTIED):
            running = checkout.start(*TARGETS)
            while running.poll() is None and emptied < TIMES_EMPTIED:
                enough = begun(checkout) + draw.randint(1, 8)
                wait_for(partial(has_begun, checkout, running, enough))
                time.sleep(draw.random())
                for entry in [e for path in places.values() for e in path.iterdir()]:
                    if entry.is_dir():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink(missing_ok=True)
                emptied += 1
            if not running.wait(900):
                break
            failed += 1
            print(checkout.path("started.log").read_text()[-3000:])
        else:
            pytest.fail("it does not get to its end")
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert tables(checkout) == tables(undisturbed)
    # A Snakemake or a script can have had a file of its own there just then.
    assert failed <= 1 + emptied // 5
    count["times that /tmp was emptied"] += emptied
    count["starts that ended since /tmp was emptied"] += failed
