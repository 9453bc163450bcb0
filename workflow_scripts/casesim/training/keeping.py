"""A finished model outlives the order to train it again, if it would be the same.

Snakemake deletes the outputs of a job before it runs, and runs all that follows from a
change, whether or not its own inputs came out as they were: another cut of the tree
that removes the same cases would train all models of all arms again. So a finished
model stays under other names, with the number of all that its weights depend on.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from casesim.errors import UserError
from casesim.files import atomic_path

_FOLDER = ".kept"
_RECORD = "record.json"


class Keeper:
    """The kept files of one model; `files` are those that a training declares.

    They are hard links: they take no room beside the model. Where a file system has
    none, nothing is kept.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self._folder = folder / _FOLDER
        self._files = list(files)

    def restore(self, key: Callable[[], str]) -> bool:
        """Put the files back if they are whole and of this key, asked for only then."""
        try:
            record = json.loads((self._folder / _RECORD).read_text(encoding="utf-8"))
            kept = [self._folder / file.name for file in self._files]
            sizes = [path.stat().st_size for path in kept]
            if record["sizes"] != sizes or record["key"] != key():
                return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        for path, file in zip(kept, self._files, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            os.link(path, file)
            os.utime(file)
        return True

    def keep(self, key: str) -> None:
        """Remember the files as they are now."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError, UserError):
            self._folder.mkdir(parents=True)
            for file in self._files:
                os.link(file, self._folder / file.name)
            sizes = [file.stat().st_size for file in self._files]
            record = json.dumps({"key": key, "sizes": sizes})
            # Last: without it nothing counts as kept.
            with atomic_path(self._folder / _RECORD) as temporary:
                temporary.write_text(record, encoding="utf-8")
