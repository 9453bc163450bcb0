"""One training at a time in a folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from casesim.processes.waiting import Wait

_LONGEST_WAIT = 24 * 3600.0
_SECONDS_BETWEEN_LOOKS = 0.1


@contextmanager
def only_training_in(folder: Path) -> Iterator[None]:
    """Wait until no other training of this host writes to a folder; keep others out.

    One whose run was killed may still be about to leave its checkpoint there. Where
    folders cannot be locked (NFS), nothing is waited for.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            wait = None
            while not _locked(lock):
                wait = wait or Wait(
                    f"another training in {folder}",
                    _LONGEST_WAIT,
                    "It belongs to another run: wait for its end, or stop it.",
                    lock=str(folder),
                )
                wait.look()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
