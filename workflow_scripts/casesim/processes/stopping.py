"""What a training does when it is told to stop."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

# A batch system, Snakemake and a process group can all pass on one and the same signal.
_SECONDS_OF_ONE_SIGNAL = 5.0


class Stop:
    """Remembers the first SIGTERM or SIGINT instead of ending; a later one acts as
    usual.

    Signals within five seconds of the first count as one with it: they come from
    several senders. That holds after the `with` block as well, if it was left because
    of the first: a process that is about to end with its status must not be ended by
    the second instead. `signal` is the number, 0 before; `react` is called with it, in
    the handler. A signal that was ignored stays ignored.
    """

    def __init__(self, react: Callable[[int], None] | None = None) -> None:
        self.signal = 0
        self._react = react
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def _remember(self, number: int, _: FrameType | None) -> None:
        if not self.signal:
            # In this order: the next signal may come between any two of these lines.
            self._at = time.monotonic()
            self.signal = number
            if self._react is not None:
                self._react(number)
        elif time.monotonic() - self._at > _SECONDS_OF_ONE_SIGNAL:
            self._restore()
            os.kill(os.getpid(), number)

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.signal:
            self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
