"""A power cut, as far as it can be had without one: what was not synced is lost.

Every process of a study notes which files it has had written to the disk (`fsync`). All
others that are cut off, empty or gone afterwards are what a journalling file system may
leave: its sizes and names come to the disk by themselves after some seconds only.
"""

import os
import random
import time
from pathlib import Path

from workflow.conftest import Checkout

# Names of the last seconds need not be on the disk, though their contents are.
_SECONDS_OF_THE_JOURNAL = 5.0
# Of Snakemake, not of a study.
_NOT_OURS = ("conda", "conda-archive", "log", "scripts")

# Loaded by every Python that has its folder on the path.
HOOK = """
import os
import time

_fsync = os.fsync


def fsync(file):
    _fsync(file)
    status = os.fstat(file)
    now = time.time_ns()
    line = f"{status.st_dev} {status.st_ino} {status.st_size} {now}\\n"
    with open(os.environ["SYNCED_FILES"], "a") as journal:
        journal.write(line)


os.fsync = fsync
"""


class Journal:
    """Which files of a study's processes are on the disk for certain."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK)
        self._path = folder / "synced.txt"
        self.environment = {"PYTHONPATH": str(folder), "SYNCED_FILES": str(self._path)}

    def synced(self) -> dict[tuple[int, ...], int]:
        """Device, inode and size of what was synced, and when it was for the last time.

        Of a folder, the names in it were.
        """
        if not self._path.exists():
            return {}
        lines = [line.split() for line in self._path.read_text().splitlines()]
        return {tuple(map(int, line[:3])): int(line[3]) for line in lines}

    def has_name(self, path: Path) -> bool:
        """Whether a file's folder was synced since it is there."""
        folder, since = path.parent.stat(), path.stat().st_ctime_ns
        return any(
            (device, inode) == (folder.st_dev, folder.st_ino) and when >= since
            for (device, inode, _), when in self.synced().items()
        )

    def unsynced(self, checkout: Checkout) -> list[Path]:
        """What a study has written, and may not survive."""
        synced = self.synced()
        found = []
        for path in _files(checkout):
            status = path.lstat()
            if (status.st_dev, status.st_ino, status.st_size) not in synced:
                found.append(path)
        return found


def _files(checkout: Checkout) -> list[Path]:
    found = []
    for name in ("results", "logs", ".snakemake"):
        for path in checkout.path(name).rglob("*"):
            part = path.relative_to(checkout.folder).parts[1]
            if path.is_file() and not (name == ".snakemake" and part in _NOT_OURS):
                found.append(path)
    # Python does not sync what it compiles.
    found += checkout.path("workflow_scripts").rglob("__pycache__/*.pyc")
    return sorted(found)


def cut(
    checkout: Checkout, journal: Journal, draw: random.Random, since: float
) -> dict[str, int]:
    """Leave of a study that was just killed what a power cut may leave of it.

    Of what was written after `since` and not synced, a file is whole, cut off at any
    byte, or gone, and has its time in any case; of what was synced, the youngest may
    not have got their names yet.

    Returns:
        How many files had which fate.
    """
    lost = {"cut off": 0, "gone": 0}
    unsynced = set(journal.unsynced(checkout))
    now = time.time()
    for path in _files(checkout):
        status = path.stat()
        if status.st_ctime < since:
            continue
        fate = draw.random()
        young = now - status.st_ctime < _SECONDS_OF_THE_JOURNAL
        young = young and not journal.has_name(path)
        if fate < 0.25 and (path in unsynced or young):
            path.unlink()
            lost["gone"] += 1
        elif fate < 0.75 and path in unsynced and status.st_size:
            os.truncate(path, draw.choice((0, draw.randrange(status.st_size))))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            lost["cut off"] += 1
    return lost
