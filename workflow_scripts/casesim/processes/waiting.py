"""Waiting for another process: said at once, again from time to time, and not for ever.

Imported only by those who wait: most clients of the resident predictor do not.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from casesim.errors import UserError
from casesim.process_table import process_information
from casesim.processes import stall

_FIRST_SECONDS = 30.0
_LONGEST_SECONDS = 300.0
_OFTEN_SECONDS = 120.0
_SECONDS_TO_END = 15.0


class Wait:
    """Tells that it waits, at growing intervals, and gives up at a limit.

    `what` completes "Waiting for". `lock` is a lock file whose holders are named where
    the system tells them, `pid` a process. The first words come after `patience`
    seconds. `limit` is in seconds; `advice` says what to do when it has passed.
    """

    def __init__(
        self,
        what: str,
        limit: float,
        advice: str,
        patience: float = 0.0,
        lock: str | None = None,
        pid: int | None = None,
    ) -> None:
        self._what = what
        self._limit = limit
        self._advice = advice
        self._lock = lock
        self._pid = pid
        self._began = time.monotonic()
        self._next = patience
        self._pause = _FIRST_SECONDS

    def look(self) -> None:
        """To be called again and again; raises `UserError` past the limit."""
        stall.progress()
        waited = time.monotonic() - self._began
        if waited >= self._limit:
            raise UserError(
                f"Waited {self._limit:.0f} s for {self._what}{self._whom()}. "
                f"{self._advice}"
            )
        if waited >= self._next:
            so_far = f" {waited:.0f} s so far." if waited >= 1 else ""
            print(
                f"Waiting for {self._what}{self._whom()}.{so_far}",
                file=sys.stderr,
                flush=True,
            )
            self._next = waited + self._pause
            self._pause = min(2 * self._pause, _LONGEST_SECONDS)

    def _whom(self) -> str:
        pids = [self._pid] if self._pid else []
        if self._lock is not None:
            pids = list(holders(self._lock))
        described = [text for pid in pids[:3] if (text := describe(pid))]
        return f" ({'; '.join(described)})" if described else ""


def for_answer(what: str, pid: int | None, waited: float, limit: float) -> None:
    """Say that an answer is waited for; to be called every few seconds.

    After `limit` seconds the process is made to write the stacks of all its threads
    into its log and to end, which closes the connection; one that is deaf to that is
    killed. Raises `UserError` when that does not help, either.
    """
    late = waited - limit
    if late >= 0 and (pid is None or late > 2 * _SECONDS_TO_END):
        raise UserError(
            f"Waited {waited:.0f} s for the {what}, whose process ({pid}) does not "
            "answer, and cannot be ended. If it is waiting for a device, start the "
            "machine anew."
        )
    whom = describe(pid) if pid else ""
    stall.progress()
    if waited < _OFTEN_SECONDS or waited % _LONGEST_SECONDS < _FIRST_SECONDS:
        print(
            f"Waiting for the {what} ({whom or 'which one is not known'}). "
            f"{waited:.0f} s so far.",
            file=sys.stderr,
            flush=True,
        )
    if late >= 0 and pid is not None:
        number = signal.SIGABRT if late < _SECONDS_TO_END else signal.SIGKILL
        # One that was stopped gets no other signal before it is told to go on.
        for each in (number, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, each)


def describe(pid: int) -> str:
    """A process in a few words: number, command, state, processor time.

    "" when there is none.
    """
    information = process_information(pid)
    if information is None:
        return ""
    words = [os.path.basename(word) for word in information[2]]  # noqa: PTH119
    # Not the interpreter and its options, but what it runs.
    names = [word for word in words[1:] if not word.startswith("-")] or words
    text = f"process {pid}, {names[0] if names else 'unknown'}"
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return text
    seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    state = _STATES.get(stat[0].decode(), stat[0].decode())
    return f"{text}, {state}, {seconds:.0f} s of processor time"


_STATES = {
    "R": "computing",
    "S": "sleeping",
    "D": "waiting for a device or a disk",
    "T": "stopped",
    "t": "stopped",
}


def holders(path: str) -> Iterator[int]:
    """The processes that hold a lock file (`flock`), where the system tells them."""
    try:
        inode = Path(path).stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split()
        # Those that wait are marked by an arrow.
        if "->" not in fields and fields[1] == "FLOCK":
            pid, file = int(fields[4]), fields[5]
            if file.rpartition(":")[2] == str(inode):
                yield pid
