"""The client's half of a process beside the jobs: found, started, asked, buried.

There are two kinds: the resident predictor, which keeps models loaded between the cells
of the matrix (`resident`), and the warm process, which has nnU-Net imported for the
jobs that train and preprocess (`warm`). Both belong to one run of the workflow and one
version of the code, are started by the first job that needs them, and end when idle or
when their run is gone; `endpoint` is their other half.

A request is the line `casesim-resident <protocol> <bytes>` and that many bytes: fields
of text, separated by null characters. They are paths and settings, never code. The
first field says what to do, the second names the process that is meant, the third is
the working directory, the rest are the job's arguments. The answer is a line `ok
<bytes>` or `failed <bytes>`, and a text.

Only light modules are imported, for the reason given in `locks`: the bare `_socket`
saves 10 ms on each of thousands of jobs.
"""
# ruff: noqa: PTH100, PTH108, PTH116, PTH118, PTH120, PTH123, PTH208

import os
import time
from _socket import AF_UNIX, SOCK_STREAM, SOL_SOCKET, socket
from zlib import crc32

from casesim.errors import UserError
from casesim.process_table import is_snakemake, process_information
from casesim.processes import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

    from casesim.processes.waiting import Wait

PROTOCOL = 1
MAX_REQUEST_BYTES = 1 << 20
# glibc gives freed feature maps back to the system and asks for the same pages again:
# a tenth of the time of a network on a CPU. Other allocators ignore these.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that it takes
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
# Threads that wait for work by spinning take the cores from whatever runs beside them,
# and wait for each other at every operation where other programs keep the cores busy.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

# How long a process may take to start, to answer a request (after those of others), and
# to give memory back: what it still computes then, nobody waits for any more.
_START_SECONDS = 120.0
_ANSWER_SECONDS = float(os.environ.get("CASESIM_ANSWER_SECONDS", "3600"))
_RELEASE_SECONDS = 120.0
_SECONDS_BETWEEN_LOOKS = 0.02
_SECONDS_WITHOUT_A_WORD = 5.0
_LOG_TAIL_LINES = 60
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Service:
    """A process beside the jobs, for one run and one version of the code.

    `what` is what messages call it, `name` tells it from others of the same run.
    `command` starts it, in the given environment, and is followed by path, key, lock,
    the owner's two fields and `arguments`.
    """

    def __init__(
        self,
        what: str,
        name: str,
        command: "Sequence[str]",
        arguments: "Sequence[str]" = (),
        environment: "Mapping[str, str] | None" = None,
    ) -> None:
        self._what = what
        self._command = command
        self._arguments = arguments
        self._environment = environment or {}
        self._owner = find_owner()
        self.key = " ".join((name, *self._owner, *command, _PACKAGE, code_version()))
        name = f"{name}-{self._owner[0]}-{crc32(os.fsencode(self.key)):08x}"
        self.path = os.path.join(locks.private_folder(), name)

    def connect(self) -> socket:
        """A connection to the process, which is started when there is none.

        Raises `UserError` with the end of its log when it does not start.
        """
        process: subprocess.Popen[bytes] | None = None
        began, wait = time.monotonic(), None
        while True:
            connection = dial(f"{self.path}.sock")
            if connection is not None:
                return connection
            if process is None:
                process = self._start()
            elif process.poll() is not None:
                raise UserError(
                    f"The {self._what} ended while starting "
                    f"(status {process.returncode}). {self._log_tail()}"
                )
            if time.monotonic() - began > _SECONDS_WITHOUT_A_WORD:
                wait = wait or self._wait("start")
                wait.look()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def exchange(
        self, connection: socket, fields: list[str]
    ) -> tuple[bool, str] | None:
        """Send a request over a connection to this process, and return the answer.

        None when the process ended instead, or did not answer in time and was ended.
        """
        return exchange(connection, fields, self._what, _ANSWER_SECONDS)

    def socket_file(self) -> tuple[int, int] | None:
        """Which file the process's socket is: each process makes its own."""
        try:
            status = os.stat(f"{self.path}.sock")
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns

    def bury(self, socket_file: tuple[int, int] | None) -> None:
        """Wait until a process that dies is gone, unless it has a successor.

        The kernel takes a while to end it, and connects others to it until then.
        """
        began, wait = time.monotonic(), None
        while self.socket_file() == socket_file:
            if time.monotonic() - began > _SECONDS_WITHOUT_A_WORD:
                wait = wait or self._wait("end")
                wait.look()
            lock = locks.try_lock(f"{self.path}.lock")
            if lock is not None:
                if self.socket_file() is not None:
                    os.unlink(f"{self.path}.sock")
                os.close(lock)
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def death(self) -> UserError:
        """What to tell when it has died while a job waited."""
        return UserError(
            f"The {self._what} ended in the middle of this request: it was "
            "killed, or ran out of memory. The next attempt starts a new one. "
            f"{self._log_tail()}"
        )

    def _start(self) -> "subprocess.Popen[bytes] | None":
        """Start it, unless another job is doing so or it is just ending.

        The process inherits the lock, which so lasts as long as the process. It stays
        in the process group of its run, so that SLURM ends it with the job step; of
        this process it inherits nothing else, since Snakemake would wait for its own
        pipes to be closed.
        """
        # Who empties /tmp takes the folder away, too: it is made anew.
        locks.private_folder()
        lock = locks.try_lock(f"{self.path}.lock")
        if lock is None:
            return None
        import subprocess

        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        log = os.open(f"{self.path}.log", flags, 0o600)
        try:
            return subprocess.Popen(
                [
                    *(*self._command, self.path, self.key, str(lock)),
                    *(*self._owner, *self._arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                cwd="/",
                env={
                    **KEEP_FREED_MEMORY,
                    **os.environ,
                    **QUIET_THREADS,
                    **self._environment,
                },
            )
        finally:
            os.close(log)
            os.close(lock)

    def _wait(self, event: str) -> "Wait":
        """Waiting for the start or the end of the process."""
        from casesim.processes.waiting import Wait

        return Wait(
            f"the {event} of the {self._what}",
            _START_SECONDS,
            f"End the process if it is still there. {self._log_tail()}",
            lock=f"{self.path}.lock",
        )

    def _log_tail(self) -> str:
        try:
            with open(f"{self.path}.log", errors="replace") as log:
                lines = log.read().splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            lines = []
        if not lines:
            return "It left no log."
        return "\n".join(["The end of its log:", *(f"    {line}" for line in lines)])


def dial(path: str) -> socket | None:
    """Connect to a UNIX socket; None when nobody listens there."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionError):
        connection.close()
        return None
    return connection


def exchange(
    connection: socket, fields: list[str], what: str, limit: float
) -> tuple[bool, str] | None:
    """Send a request to a process (`what` it is called), and return the answer.

    None when it ended instead, or did not answer within `limit` seconds and was ended.
    Raises `UserError` when it cannot be ended.
    """

    def watch(waited: float) -> None:
        from casesim.processes.waiting import for_answer

        for_answer(what, peer(connection), waited, limit)

    send(connection, fields)
    first = min(_SECONDS_WITHOUT_A_WORD, limit / 4)
    return receive(connection, watch, first, 6 * first)


def send(connection: socket, fields: list[str], files: "Sequence[int]" = ()) -> None:
    """Send a request, and open files along with it.

    When the other side has ended, nothing happens: `receive` tells. Raises `UserError`
    when it does not take the request.
    """
    request = "\0".join(fields).encode(errors="surrogateescape")
    header = f"casesim-resident {PROTOCOL} {len(request)}\n".encode()
    connection.settimeout(_START_SECONDS)
    try:
        if files:
            from _socket import SCM_RIGHTS
            from array import array

            connection.sendmsg([header], [(SOL_SOCKET, SCM_RIGHTS, array("i", files))])
            header = b""
        connection.sendall(header + request)
    except ConnectionError:
        pass
    except TimeoutError:
        raise UserError(
            f"Process {peer(connection)} took no request in {_START_SECONDS:.0f} s. "
            "End it: the next attempt starts another."
        ) from None


def receive(
    connection: socket, watch: "Callable[[float], None]", first: float, then: float
) -> tuple[bool, str] | None:
    """Wait for the answer and close; None when the other side ended instead.

    While there is none, `watch` is called after `first` seconds, and again every `then`
    seconds, with the time waited. What it raises ends the waiting.
    """
    parts = []
    began = time.monotonic()
    connection.settimeout(first)
    try:
        while True:
            try:
                part = connection.recv(1 << 16)
            except TimeoutError:
                watch(time.monotonic() - began)
                connection.settimeout(then)
                continue
            if not part:
                break
            parts.append(part)
    except ConnectionError:
        pass
    finally:
        connection.close()
    status, _, text = b"".join(parts).partition(b"\n")
    word, _, length = status.partition(b" ")
    if word not in (b"ok", b"failed") or length != b"%d" % len(text):
        return None
    return word == b"ok", text.decode(errors="replace")


def peer(connection: socket) -> int | None:
    """The process that listened where this connects to; None where that is not told."""
    try:
        # SO_PEERCRED of Linux: process, user and group.
        credentials = connection.getsockopt(SOL_SOCKET, 17, 12)
    except OSError:
        return None
    from sys import byteorder, platform

    return int.from_bytes(credentials[:4], byteorder) if platform == "linux" else None


def release(name: str) -> None:
    """Make every process called `name`, of whatever run, drop what it has loaded.

    It answers when it has finished what it was computing: even a request whose client
    was killed never overlaps with what the caller does next. To be called by whoever
    holds the device, so that no client waits for an answer: a process that gives its
    memory back in no other way is ended.
    """
    folder = locks.private_folder()
    for file in sorted(os.listdir(folder)):
        if not (file.startswith(f"{name}-") and file.endswith(".sock")):
            continue
        connection = dial(os.path.join(folder, file))
        if connection is not None:
            what = "memory of the resident predictor"
            exchange(connection, ["release", "", "/"], what, _RELEASE_SECONDS)


def find_owner() -> tuple[str, str]:
    """The process whose end ends the server: its id and its start time.

    It is the nearest ancestor that is Snakemake, under SLURM the one inside the
    allocation; without Snakemake, the process that started the client.
    """
    parent = pid = os.getppid()
    while pid > 0:
        information = process_information(pid)
        if information is None:
            break
        next_pid, started, command = information
        if is_snakemake(command):
            return str(pid), started
        pid = next_pid
    information = process_information(parent)
    return str(parent), "" if information is None else information[1]


def code_version() -> str:
    """What changes when a file of the package changes, in whichever room it lies."""
    folders, files = [_PACKAGE], []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(".py"):
                    status = entry.stat()
                    files.append((entry.path, status.st_size, status.st_mtime_ns))
                elif name != "__pycache__" and entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    files.sort()
    return f"{PROTOCOL}-{crc32(repr(files).encode()):08x}"
