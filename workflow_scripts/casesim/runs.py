"""Which Snakemakes work in this folder, and what a killed one has left behind.

Snakemake's own locks are files without an owner. So a run holds two locks of the
kernel's beside them, which end with its process, however that ends:

* `starts.lock`, shared, from the moment when the Snakefile is parsed. Whoever gets it
  alone knows that nobody else of this host is between that moment and its end, and
  may remove the locks of the dead. There is no moment in which a run has locks of
  Snakemake's, but not this one.
* `run.lock`, alone, while jobs run: of several that start at once, one goes on.

Beside them each Snakemake notes its host and process. The kernel's locks need not
reach other hosts (NFS has ways of its own): what a process of another host may have
locked is left alone.
"""

import atexit
import fcntl
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from casesim import dates, records
from casesim.errors import UserError
from casesim.files import atomic_path, sync
from casesim.process_table import (
    is_snakemake,
    process_information,
    processes_in,
)

LOCKS = Path(".snakemake/locks")
FOLDER = Path(".snakemake/casesim")

_STARTS, _RUN = "starts.lock", "run.lock"
# Only to look for the dead does anybody hold `starts.lock` alone.
_SECONDS_TO_LOOK = 30.0
_SECONDS_BETWEEN_LOOKS = 0.02
# From its note, a run needs at most this long to Snakemake's locks.
_SECONDS_TO_PLAN = 24 * 3600.0

# Descriptors that hold a lock until the end of this process.
_held: list[int] = []


def arrive(folder: Path = Path()) -> str | None:
    """Be known as a Snakemake of `folder`, and remove the locks of killed ones.

    Snakemake leaves its locks behind when it is killed or the power fails, and then
    refuses to start until it is told `--unlock`. They are removed when everyone who
    can have set them is gone for certain: not where no run was noted, a Snakemake of
    other origin works in the folder, a run of another host may live, or where the file
    system has no locks.

    Returns:
        What to tell the user, if anything.
    """
    place = folder / FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _open(place / _STARTS)
    except OSError:
        return None  # Snakemake itself will say that it cannot write here.
    message = None
    try:
        if _flock(lock, fcntl.LOCK_EX):
            message = _remove_stale_locks(folder)
            if not any((folder / LOCKS).glob("*.lock")):
                told = [message, _distrust_damaged(folder), _bring_back(folder)]
                message = " ".join(filter(None, told)) or None
        deadline = time.monotonic() + _SECONDS_TO_LOOK
        while not _flock(lock, fcntl.LOCK_SH) and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        _note(place)
    except OSError:  # a file system without locks, or one that is full
        os.close(lock)
        return None
    _held.append(lock)
    return message


def begin(folder: Path = Path()) -> None:
    """Be the one run that works in `folder`, until this process ends.

    Raises `UserError` when another one does. Without effect where the file system has
    no locks.
    """
    path = folder / FOLDER / _RUN
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _open(path)
    try:
        alone = _flock(lock, fcntl.LOCK_EX)
    except OSError:
        os.close(lock)
        return
    if not alone:
        who = _read(path)
        os.close(lock)
        raise UserError(
            f"Another run works in this folder: {_describe(who)}. Wait for its end, or "
            "stop it, then start again."
        )
    _held.append(lock)
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(_myself()).encode(), 0)


def _remove_stale_locks(folder: Path) -> str | None:
    """For whoever holds `starts.lock` alone: all that is noted of this host is dead."""
    place = folder / FOLDER
    notes = {path: _read(path) for path in place.glob("*.json")}
    own = [path for path, note in notes.items() if note.get("host") == _host()]
    others = [note for path, note in notes.items() if path not in own]
    locked = any((folder / LOCKS).glob("*.lock"))
    message = None
    if locked and others:
        message = (
            "This folder is locked, perhaps by a run on another host: "
            f"{_describe(others[0])}. If it has ended, run snakemake --unlock."
        )
    elif locked and own and not _is_anybody_here(folder):
        shutil.rmtree(folder / LOCKS, ignore_errors=True)
        message = "An earlier run was killed: its locks are removed, its work goes on."
    for path in own:
        path.unlink(missing_ok=True)
    if not locked:
        for path in notes:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _SECONDS_TO_PLAN:
                    path.unlink()
    return message


def _distrust_damaged(folder: Path) -> str:
    number = 0
    with suppress(OSError):  # of another user, say: Snakemake will tell
        number = records.distrust_damaged(folder)
    if not number:
        return ""
    return (
        f"What Snakemake noted of {number} finished files is damaged, as after a power "
        "cut: whether they are up to date is not known, so they are made again."
    )


def _bring_back(folder: Path) -> str:
    number = seconds = 0
    with suppress(OSError):
        number, seconds = dates.bring_back(folder)
    if not number:
        return ""
    return (
        f"{number} files below results were from the future, by up to {seconds} s: the "
        "clock was set back since they were made, or one is wrong. They have got dates "
        "of the past, in their order."
    )


def _is_anybody_here(folder: Path) -> bool:
    """Whether another Snakemake, of whatever workflow, works in this folder."""
    return any(
        is_snakemake(command) and ("--mode" not in command)
        for pid, command in processes_in(str(folder.resolve()))
        if pid != os.getpid()
    )


def _note(place: Path) -> None:
    """Leave a note that this process is here, until it ends in order."""
    note = place / f"{_host()}-{os.getpid()}.json"
    process = os.getpid()

    def remove() -> None:
        # Not by a process that was forked.
        if os.getpid() == process:
            with suppress(OSError):
                note.unlink(missing_ok=True)

    atexit.register(remove)
    with atomic_path(note) as path:
        path.write_text(json.dumps(_myself()))
    # After a power cut, Snakemake's locks without this note would stay for ever: it has
    # to have its name on the disk before there are any.
    with suppress(OSError):
        for changed in (place, place.parent):
            sync(changed)


def _myself() -> dict[str, Any]:
    information = process_information(os.getpid())
    return {
        "host": _host(),
        "pid": os.getpid(),
        "started": information[1] if information else "",
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _host() -> str:
    return socket.gethostname()


def _describe(who: dict[str, Any]) -> str:
    if not who:
        return "which one is not known"
    return f"process {who.get('pid')} on {who.get('host')}, since {who.get('since')}"


def _read(path: Path) -> dict[str, Any]:
    """A note; empty when it is damaged or just being written."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _flock(lock: int, kind: int) -> bool:
    """Lock an open file without waiting; raises OSError where that is impossible."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
