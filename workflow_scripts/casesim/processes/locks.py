"""Locks that end with their holder, and the private folder where they and sockets lie.

Only light modules are imported, and `os.path` is used instead of `pathlib`: the client
of the resident predictor starts once for every cell of the matrix, and pathlib alone
would double its time.
"""
# ruff: noqa: PTH102, PTH117, PTH118

import fcntl
import os
import stat

from casesim.errors import UserError

# A UNIX socket's path has room for 104 bytes on macOS, 108 on Linux; names made here
# stay within 48.
_LONGEST_FOLDER = 50


def private_folder() -> str:
    """The folder of locks and sockets: on a local disk, this user's alone (mode 0700).

    `$XDG_RUNTIME_DIR/casesim` where that is usable, else `/tmp/casesim-<user id>`, else
    the same name under `$TMPDIR`. Raises `UserError` when none can be trusted.
    """
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [os.path.join(runtime, "casesim")] if _is_private(runtime) else []
    candidates += [
        os.path.join(parent, f"casesim-{user}")
        for parent in ("/tmp", os.environ.get("TMPDIR", ""))
    ]
    for folder in candidates:
        if not os.path.isabs(folder) or len(os.fsencode(folder)) > _LONGEST_FOLDER:
            continue
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except OSError:
            continue
        if _is_private(folder):
            return folder
    raise UserError(
        "No private folder for the predictor's socket: none of "
        f"{', '.join(candidates)} is a folder of yours with mode 0700 and a path of at "
        f"most {_LONGEST_FOLDER} bytes. Delete what is in the way, or set "
        "XDG_RUNTIME_DIR to a folder of yours with mode 0700 on a local disk."
    )


def _is_private(folder: str) -> bool:
    """Whether it is a real folder (no link) of this user that nobody else can enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & 0o077
    )


def try_lock(path: str, kind: int = fcntl.LOCK_EX) -> int | None:
    """An open descriptor that holds the lock `path`, or None when another holds it.

    The lock lasts until every copy of the descriptor is closed, in child processes too.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if not lock_file(lock, kind):
        return None
    # A file that its last holder has deleted is not the lock that others will find.
    if not os.fstat(lock).st_nlink:
        os.close(lock)
        return None
    return lock


def lock_file(lock: int, kind: int) -> bool:
    """Lock an open file without waiting; close it when another holds it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True
