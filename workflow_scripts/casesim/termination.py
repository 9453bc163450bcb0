"""What a run does when Snakemake alone is told to end.

Snakemake answers SIGTERM by waiting for the jobs that run, a training for its hours,
and says so in words that do not tell how to end it now. Nor do its jobs hear of a
SIGINT that was not sent to all of them by a terminal. And its own handler takes a lock
that the interrupted code may hold: then it waits for itself for ever.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from casesim.process_table import children

# A batch system, `timeout` and a process group can all pass on one and the same signal.
_SECONDS_OF_ONE_SIGNAL = 5.0


class _Handler:
    """The first SIGTERM is Snakemake's to act on; a later one ends all jobs."""

    def __init__(
        self, say: Callable[[str], None], before: Callable[..., object]
    ) -> None:
        self._say = say
        self._before = before
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            act = self._wait
        elif now - self._first > _SECONDS_OF_ONE_SIGNAL:
            act = self._end
        else:
            return
        # In a thread: whatever lock the interrupted code holds, it comes to release it.
        threading.Thread(target=act, args=(number, frame), daemon=True).start()

    def _wait(self, number: int, frame: FrameType | None) -> None:
        self._before(number, frame)
        running = len(list(children(os.getpid())))
        self._say(
            f"Told to end (SIGTERM): no new job is started, {running} that run are "
            "waited for; a training can take long. To end at once, send SIGTERM again "
            f"(kill {os.getpid()}): trainings then leave a checkpoint, and the same "
            "command goes on from there."
        )

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._say("Told to end again: the running jobs are ended.")
        # A shell does not pass on what it gets to the job that it runs.
        pids = [os.getpid()]
        for pid in pids:
            pids += children(pid)
        for pid in pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def explain(say: Callable[[str], None]) -> None:
    """From now on, tell by `say` what SIGTERM does, and end all jobs at the second.

    To be called in the main thread, when Snakemake has set its own handler; without
    effect where it has none.
    """
    before = signal.getsignal(signal.SIGTERM)
    if callable(before) and not isinstance(before, _Handler):
        signal.signal(signal.SIGTERM, _Handler(say, before))
