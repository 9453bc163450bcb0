"""A job that stands still says where, and ends.

A process that waits for ever, for a device, a thread or a lock, waits without a word.
So whoever works calls `progress` from time to time; when nobody does for half an hour,
the stacks of all threads go to the job's log, and the process ends with status 1. The
watch is a thread of the interpreter's own, which works even when Python code cannot
run.
"""

import faulthandler
import os
import time

SECONDS = float(os.environ.get("CASESIM_STALL_SECONDS", "1800"))
# Setting the clock anew starts a thread.
_SHARE_BETWEEN_SETTINGS = 0.01

_set_at: float | None = None


def watch() -> None:
    """From now on, end this process when it makes no progress."""
    global _set_at
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    _set_at = time.monotonic()


def progress() -> None:
    """Tell that this process is alive; cheap, and without effect if none watches."""
    now = time.monotonic()
    if _set_at is not None and now - _set_at > _SHARE_BETWEEN_SETTINGS * SECONDS:
        watch()


def rest() -> None:
    """End the watch."""
    global _set_at
    if _set_at is not None:
        faulthandler.cancel_dump_traceback_later()
        _set_at = None
