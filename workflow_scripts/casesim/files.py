"""Writing files so that a crash leaves either the whole file or none, and logging."""

import errno
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from casesim.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block succeeds.

    The temporary name ends like the final one, since image writers choose the format
    by suffix. It is removed when the block raises; after a kill it stays behind as a
    hidden file `.tmp-*` that nothing reads. What has its name survives a power cut.
    Raises `UserError` when the disk is full.
    """
    final = Path(path)
    with room_for(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(final.suffixes[-2:])
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=suffix, dir=final.parent)
        os.close(handle)
        # mkstemp makes the file private; results get the modes of any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary = Path(name)
        temporary.chmod(0o666 & ~umask)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk.

    Of a file before its name says that it is there: else the name can survive a power
    cut, and the content not: an empty file, newer than all that it was made from, which
    the workflow engine takes for done.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Tell in the user's words that a disk, a quota or a limit is used up."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"{path} cannot be written: {error.strerror}. Make room on that disk, then "
            "start the same command again: it goes on from here."
        ) from None


@contextmanager
def logged(path: str | os.PathLike[str]) -> Iterator[None]:
    """Send all that a script prints, C libraries and child processes too, to `path`.

    A `UserError` ends the script with its message alone; any other exception with a
    traceback in the log. Both exit with status 1, so that the workflow engine reports
    the job by its own name and log instead of by a stack of its own frames.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    saved = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    speak_plainly()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    failed = False
    try:
        yield
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        failed = True
    except Exception:
        traceback.print_exc()
        failed = True
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
    if failed:
        sys.exit(1)


def speak_plainly() -> None:
    """Let standard output and error show what the locale cannot, in place of failing.

    Where the locale is Latin-1 or C, an ellipsis in a message would end a job.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
