"""Files loaded in the background and kept between cells, within a budget of memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from casesim.errors import UserError

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values loaded in the background; the least recently used go when room is short.

    `load` returns a value and its size in bytes. Calls may come from several threads.
    """

    def __init__(
        self,
        load: Callable[..., tuple[Value, int]],
        budget: int,
        loader: ThreadPoolExecutor,
    ) -> None:
        self._load = load
        self._budget = budget
        self._loader = loader
        self._entries: OrderedDict[Hashable, Future[tuple[Value, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(
        self, *paths: Path, also: tuple[Path, ...] = (), **options: Hashable
    ) -> Future[Any]:
        """The value of these files, being loaded unless it is there already.

        A file that has been written anew is loaded anew; so is the value when one of
        the files in `also` has, which `load` finds by itself. `options` are handed on
        to `load`. Raises `UserError` naming the file that is missing.
        """
        files = tuple(_fingerprint(path) for path in (*paths, *also))
        key = (files, tuple(sorted(options.items())))
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.done() and entry.exception()):
                entry = self._loader.submit(self._load, *paths, **options)
                self._entries[key] = entry
            self._entries.move_to_end(key)
        return entry

    def trim(self) -> None:
        """Forget what failed, and the least recently used beyond the budget."""
        with self._lock:
            loaded = 0
            for key, entry in reversed(list(self._entries.items())):
                if not entry.done():
                    continue
                if entry.exception() is None:
                    loaded += entry.result()[1]
                if entry.exception() is not None or loaded > self._budget:
                    del self._entries[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def _fingerprint(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). "
            "Run the workflow again to make it."
        ) from None
    return str(path), status.st_mtime_ns, status.st_size
