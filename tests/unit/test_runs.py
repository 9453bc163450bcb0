"""Locks of a killed Snakemake are removed, those of a living one are kept."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.processes.hosts import is_alive, wait_until

from casesim import runs
from casesim.errors import UserError
from casesim.runs import FOLDER, LOCKS, arrive, begin

SCRIPTS = str(Path(runs.__file__).parents[1])
LOCK = LOCKS / "0.output.lock"
ALONE = "An earlier run was killed: its locks are removed, its work goes on."

# A Snakemake as far as locks go: it arrives, locks as Snakemake does, begins, works.
SNAKEMAKE = f"""
import os, sys, time
sys.path.insert(0, {SCRIPTS!r})
from pathlib import Path
from casesim import runs
from casesim.errors import UserError
until = float(sys.argv[1])
time.sleep(max(0, until - time.time()))
told = runs.arrive()
if told: print("removed", flush=True)
if any(runs.LOCKS.glob("*.lock")):
    print("locked", flush=True)
    sys.exit(1)
runs.LOCKS.mkdir(parents=True, exist_ok=True)
(runs.LOCKS / f"{{os.getpid()}}.output.lock").write_text("results/a.tsv")
print("planned", flush=True)
if "hold" in sys.argv:
    sys.stdin.readline()
try:
    runs.begin()
except UserError as error:
    print("refused:", error, flush=True)
    sys.exit(1)
inside = os.open("inside", os.O_CREAT | os.O_EXCL)
print("works", flush=True)
if "work" in sys.argv:
    sys.stdin.readline()
time.sleep(0.05)
os.unlink("inside")
for lock in runs.LOCKS.glob("*.lock"):
    lock.unlink(missing_ok=True)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    (tmp_path / LOCKS).mkdir(parents=True)
    (tmp_path / LOCK).write_text("results/a.tsv")
    return tmp_path


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What this process holds ends with the test."""
    yield
    while runs._held:
        os.close(runs._held.pop())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, at: float = 0) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", SNAKEMAKE, str(at), *words],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def says(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()).strip() != word:
        assert line, f"it ended without {word!r}"


def noted_by_the_dead(folder: Path, **changes: Any) -> Path:
    """What a Snakemake that was killed has left."""
    dead = {**runs._myself(), "pid": 2**22 + 1, **changes}
    path = folder / FOLDER / f"{dead['host']}-{dead['pid']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dead))
    return path


@pytest.mark.parametrize("words", [["hold"], ["work"]])
def test_locks_of_a_living_process_are_kept(
    tmp_path: Path, start: Start, words: list[str]
) -> None:
    says(start(*words), "planned" if words == ["hold"] else "works")
    before = sorted((tmp_path / LOCKS).iterdir())
    assert arrive(tmp_path) is None
    assert sorted((tmp_path / LOCKS).iterdir()) == before != []


@pytest.mark.parametrize("words", [["hold"], ["work"]])
def test_locks_of_a_process_that_has_ended_are_removed(
    tmp_path: Path, start: Start, words: list[str]
) -> None:
    process = start(*words)
    says(process, "planned" if words == ["hold"] else "works")
    process.kill()
    process.wait()
    assert arrive(tmp_path) == ALONE
    assert not (tmp_path / LOCKS).exists()
    begin(tmp_path)
    # Its own note is what is left.
    assert [path.stem for path in (tmp_path / FOLDER).glob("*.json")] == [
        f"{runs._host()}-{os.getpid()}"
    ]


def test_a_process_that_ended_in_order_has_left_nothing(
    tmp_path: Path, start: Start
) -> None:
    process = start()
    assert process.wait(60) == 0
    assert not list((tmp_path / FOLDER).glob("*.json"))
    assert arrive(tmp_path) is None


def test_its_note_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Snakemake's locks, which come later, would be nobody's for ever."""
    synced, sync = [], os.fsync

    def note(file: int) -> None:
        sync(file)
        there = [path.name for path in (tmp_path / FOLDER).glob("*.json")]
        synced.append((os.fstat(file).st_ino, there))

    monkeypatch.setattr(os, "fsync", note)
    arrive(tmp_path)
    (path,) = (tmp_path / FOLDER).glob("*.json")
    assert path.stat().st_ino in dict(synced)
    for folder in (path.parent, path.parent.parent):
        assert (folder.stat().st_ino, [path.name]) in synced


def test_another_process_with_the_same_number_is_not_mistaken(locked: Path) -> None:
    noted_by_the_dead(locked, pid=os.getppid(), started="before")
    assert arrive(locked) == ALONE
    assert not (locked / LOCKS).exists()


def test_locks_of_another_host_are_kept(locked: Path) -> None:
    note = noted_by_the_dead(locked, host="elsewhere")
    noted_by_the_dead(locked)
    told = arrive(locked)
    assert told is not None
    assert "elsewhere" in told
    assert "--unlock" in told
    assert (locked / LOCK).exists()
    # Once it is unlocked and the note is old, it stands in nobody's way.
    (locked / LOCK).unlink()
    while runs._held:
        os.close(runs._held.pop())
    arrive(locked)
    assert note.exists()
    os.utime(note, (0, 0))
    while runs._held:
        os.close(runs._held.pop())
    arrive(locked)
    assert not note.exists()


def test_without_a_record_locks_are_kept(locked: Path) -> None:
    assert arrive(locked) is None
    assert (locked / LOCK).exists()


def test_damaged_record_is_no_record(locked: Path) -> None:
    noted_by_the_dead(locked).write_text("{")
    told = arrive(locked)
    assert told is not None
    assert "not known" in told
    assert (locked / LOCK).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_locks_of_a_snakemake_of_other_origin_are_kept(locked: Path) -> None:
    noted_by_the_dead(locked)
    (locked / "snakemake").write_text("print(flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "snakemake"],
        cwd=locked,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert arrive(locked) is None
        assert (locked / LOCK).exists()
        other.communicate("\n")


@pytest.mark.parametrize("error", [OSError, BlockingIOError])
def test_file_system_without_locks(
    locked: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    noted_by_the_dead(locked)
    monkeypatch.setattr(runs, "_SECONDS_TO_LOOK", 0.1)

    def flock(*_: int) -> None:
        raise error(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    assert arrive(locked) is None
    assert (locked / LOCK).exists()
    if error is OSError:
        begin(locked)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".snakemake").touch()
    assert arrive(tmp_path) is None


def test_second_run_is_refused_by_name(tmp_path: Path, start: Start) -> None:
    first = start("work")
    says(first, "works")
    with pytest.raises(UserError, match=f"process {first.pid} on .*, since 20"):
        begin(tmp_path)
    first.communicate("\n")
    begin(tmp_path)


def test_start_between_the_locks_and_the_beginning_of_another(
    tmp_path: Path, start: Start
) -> None:
    """The first is held where its locks are set, and nobody knows yet who it is."""
    first = start("hold")
    says(first, "planned")
    os.kill(first.pid, signal.SIGSTOP)
    second = start()
    assert second.communicate(timeout=60)[0] == "locked\n"
    os.kill(first.pid, signal.SIGCONT)
    out, _ = first.communicate("\n", timeout=60)
    assert "works" in out
    assert first.returncode == 0


@pytest.mark.parametrize("killed", [False, True])
def test_of_many_that_start_at_once_one_works(
    tmp_path: Path, start: Start, killed: bool
) -> None:
    import time

    if killed:
        earlier = start("work")
        says(earlier, "works")
        earlier.kill()
        earlier.wait()
        (tmp_path / "inside").unlink()
    at = time.time() + 1.5
    together = [start(at=at) for _ in range(16)]
    said = [p.communicate(timeout=120)[0].splitlines() for p in together]
    # None has found another at work: that would have raised, and ended with status 1.
    worked = [
        p.returncode
        for p, words in zip(together, said, strict=True)
        if "works" in words
    ]
    assert worked
    assert set(worked) == {0}
    assert sum("removed" in words for words in said) == killed
    for process, words in zip(together, said, strict=True):
        assert "works" in words or process.returncode == 1
    wait_until(lambda: not any(is_alive(process.pid) for process in together))
    assert not list((tmp_path / FOLDER).glob("*.json"))
