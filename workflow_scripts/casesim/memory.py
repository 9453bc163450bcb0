"""Memory that threads share: each waits until there is room for its part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What a process with numpy, scipy and SimpleITK takes before it has read anything.
PROCESS_BYTES = 0.5e9


class SharedMemory:
    """So many bytes, of which each thread takes some for a while.

    Args:
        total: bytes. What needs more than there is goes alone.
    """

    def __init__(self, total: float) -> None:
        self._total = self._left = max(1.0, total)
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, needed: float) -> Iterator[None]:
        """Wait for so many bytes, and give them back in the end."""
        part = min(needed, self._total)
        with self._changed:
            self._changed.wait_for(lambda: part <= self._left)
            self._left -= part
        try:
            yield
        finally:
            with self._changed:
                self._left += part
                self._changed.notify_all()
