"""No wait without words, and none without an end."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from casesim.errors import UserError
from casesim.processes import devices, locks, waiting

from .hosts import wait_until


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def test_words_at_growing_intervals_and_a_limit(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    wait = waiting.Wait("a thing", 3000, "Do this.", patience=5)
    told = []
    for second in range(3000):
        clock.now = 100 + second
        wait.look()
        if capsys.readouterr().err:
            told.append(second)
    assert told[:4] == [5, 35, 95, 215]
    assert {b - a for a, b in itertools.pairwise(told[4:])} == {300}
    clock.now = 3100
    with pytest.raises(UserError, match=r"Waited 3000 s for a thing\. Do this"):
        wait.look()


def test_first_words_come_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.Wait("a thing", 10, "").look()
    assert capsys.readouterr().err == "Waiting for a thing.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_holders_of_a_lock_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "x.lock")
    assert not list(waiting.holders(path))
    lock = locks.try_lock(path)
    assert lock is not None
    assert list(waiting.holders(path)) == [os.getpid()]
    waiting.Wait("a thing", 10, "", lock=path).look()
    assert f"a thing (process {os.getpid()}, " in capsys.readouterr().err
    os.close(lock)
    assert not list(waiting.holders(path))


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_are_described(sleeper: "subprocess.Popen[bytes]") -> None:
    wait_until(lambda: "sleeping" in waiting.describe(sleeper.pid))
    sleeper.send_signal(signal.SIGSTOP)
    wait_until(lambda: "stopped" in waiting.describe(sleeper.pid))
    sleeper.kill()
    wait_until(lambda: waiting.describe(sleeper.pid) == "")


@pytest.mark.parametrize(
    ("waited", "number"), [(59.0, None), (61.0, signal.SIGABRT), (80.0, signal.SIGKILL)]
)
def test_what_does_not_answer_is_ended(
    sleeper: "subprocess.Popen[bytes]", waited: float, number: int | None
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    waiting.for_answer("thing", sleeper.pid, waited, 60.0)
    if number is None:
        with pytest.raises(subprocess.TimeoutExpired):
            sleeper.wait(0.2)
    else:
        assert sleeper.wait(20) == -number


def test_what_cannot_be_ended_is_given_up() -> None:
    with pytest.raises(UserError, match="cannot be ended"):
        waiting.for_answer("thing", None, 61.0, 60.0)
    with pytest.raises(UserError, match="cannot be ended"):
        waiting.for_answer("thing", 2**22 + 1, 100.0, 60.0)


def test_long_answers_are_told_less_often(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [5.0, *range(35, 3600, 30)]
    told = []
    for waited in seconds:
        waiting.for_answer("thing", os.getpid(), waited, 3600.0)
        if f"{waited:.0f} s so far" in capsys.readouterr().err:
            told.append(waited)
    assert told[:4] == [5, 35, 65, 95]
    assert len(told) <= 4 + 3600 / 300


def test_no_gpu_within_the_limit(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(devices, "_LONGEST_SECONDS", 0.2)
    with devices.reserve(1), pytest.raises(UserError, match="a free GPU"):
        devices.reserve(1)
