"""What is in the user's files, told by content and not by date.

A corrected file may be older than the one that it replaces (`cp -p`, rsync), and a file
that was merely touched, or copied elsewhere, is the same. So an import depends on the
checksums of its files. They are remembered: a file is read again only when its size,
its times or its place on disk have changed. Standard library only: it runs whenever
the workflow is parsed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from casesim.files import atomic_path

STORE = Path(".snakemake/casesim_sources.json")

_BLOCK_BYTES = 1 << 20
# Hashing and reading leave Python's lock: a disk is the limit soon.
_THREADS = 8


@dataclass(frozen=True)
class _Seen:
    """A file's state when it was read last, and its checksum."""

    state: tuple[int, ...]
    checksum: str


class Fingerprints:
    """Checksums of files, with a store that remembers them between starts.

    A store that is missing or damaged costs time only: all files are read again.
    """

    def __init__(self, store: str | os.PathLike[str] = STORE) -> None:
        self._store = Path(store)
        self._seen: dict[str, _Seen] = {}
        try:
            content = json.loads(self._store.read_text(encoding="utf-8"))
            for path, (state, checksum) in content.items():
                self._seen[str(path)] = _Seen(tuple(map(int, state)), str(checksum))
        except (OSError, ValueError, TypeError, AttributeError):
            self._seen = {}

    def refresh(self, paths: Sequence[str]) -> list[str]:
        """Read those files that are new or may have changed.

        Returns:
            Those that were known with another content, sorted.
        """
        stale = [path for path in paths if self._remembered(path) is None]
        before = {
            path: self._seen[path].checksum for path in stale if path in self._seen
        }
        if not stale:
            return []
        with ThreadPoolExecutor(_THREADS) as executor:
            for path, seen in zip(stale, executor.map(_look, stale), strict=True):
                self._seen[path] = seen
        return sorted(
            path for path, sum_ in before.items() if self._seen[path].checksum != sum_
        )

    def of(self, paths: Iterable[str]) -> list[str]:
        """The checksums of files, in their order."""
        paths = list(paths)
        self.refresh(paths)
        return [self._seen[path].checksum for path in paths]

    def save(self) -> None:
        """Remember all of it for the next start."""
        content = {
            path: [seen.state, seen.checksum] for path, seen in self._seen.items()
        }
        with atomic_path(self._store) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def _remembered(self, path: str) -> _Seen | None:
        seen = self._seen.get(path)
        return seen if seen is not None and seen.state == _state(path) else None


def _state(path: str) -> tuple[int, ...]:
    """What changes whenever a file is written or replaced; empty if there is none.

    The time of the last change of its entry is set by the system, not by who copies.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _look(path: str) -> _Seen:
    state = _state(path)
    checksum = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            while block := file.read(_BLOCK_BYTES):
                checksum.update(block)
    except OSError as error:
        # The check of the cohort says what is wrong with it.
        return _Seen((), f"unreadable: {error.strerror}")
    return _Seen(state, checksum.hexdigest())
