"""The server's half of a process beside the jobs: its socket, its requests, its end.

See `service` for who starts it and what a request is.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from casesim.errors import UserError
from casesim.process_table import process_information
from casesim.processes import locks, service

# Can be shortened by whoever pays for idle memory.
IDLE_SECONDS = float(os.environ.get("CASESIM_RESIDENT_IDLE_SECONDS", "600"))
SECONDS_BETWEEN_LOOKS = 1.0

_SECONDS_TO_EXCHANGE = 10.0
_SECONDS_TO_KEEP_LOGS = 3600.0
_LONGEST_HEADER = 64


@dataclass
class Request:
    """What a job asks for; `files` are open descriptors that came along with it."""

    verb: str
    key: str
    directory: str
    arguments: list[str]
    files: list[int] = field(default_factory=list)

    def close_files(self) -> None:
        while self.files:
            os.close(self.files.pop())


def read_request(connection: socket.socket, max_files: int = 0) -> Request:
    """Read one request, and not a byte more.

    Raises `UserError` for what is no request of this protocol, or of another user.
    """
    request = Request("", "", "", [])
    end = time.monotonic() + _SECONDS_TO_EXCHANGE
    try:
        user = user_of(connection)
        if user not in (os.getuid(), 0):
            raise UserError(f"This process serves another user than {user}.")
        header = b""
        while not header.endswith(b"\n") and len(header) < _LONGEST_HEADER:
            _set_deadline(connection, end)
            byte, received, *_ = socket.recv_fds(connection, 1, max_files)
            request.files += received
            if not byte:
                break
            header += byte
        words = header.split()
        if words[:2] != [b"casesim-resident", b"%d" % service.PROTOCOL]:
            raise UserError(f"This is not protocol {service.PROTOCOL}: {words!r}")
        length = int(words[2])
        if not 0 <= length <= service.MAX_REQUEST_BYTES:
            raise UserError(f"A request of {length} bytes is too long.")
        content = b""
        while len(content) < length:
            _set_deadline(connection, end)
            part = connection.recv(length - len(content))
            if not part:
                raise UserError("The request ended early.")
            content += part
        fields = os.fsdecode(content).split("\0")
        if len(fields) < 3:
            raise UserError("A request has a verb, a key and a folder.")
        request.verb, request.key, request.directory, *request.arguments = fields
    except BaseException:
        request.close_files()
        # What is left unread would reach the client as an error instead of the answer.
        with suppress(OSError):
            connection.setblocking(False)
            connection.recv(service.MAX_REQUEST_BYTES)
        raise
    return request


def _set_deadline(connection: socket.socket, end: float) -> None:
    """Let the next operation last until `end`; raises `UserError` when that is past."""
    left = end - time.monotonic()
    if left <= 0:
        raise UserError(f"The request did not come within {_SECONDS_TO_EXCHANGE:.0f} s")
    connection.settimeout(left)


def user_of(connection: socket.socket) -> int:
    """Whose process has connected; this user where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("iII", told)[1]


def answer(connection: socket.socket, succeeded: bool, text: str) -> None:
    """Send the answer; a client that has gone does not matter."""
    content = text.encode(errors="replace")
    word = b"ok" if succeeded else b"failed"
    with suppress(OSError), connection:
        connection.settimeout(_SECONDS_TO_EXCHANGE)
        connection.sendall(b"%s %d\n" % (word, len(content)) + content)
        # Processes that inherited the connection do not keep the client waiting.
        connection.shutdown(socket.SHUT_RDWR)


def explain(error: BaseException) -> str:
    """An error as the job that met it is told."""
    if isinstance(error, UserError):
        return f"Error: {error}"
    return "".join(traceback.format_exception(error)).rstrip()


class Endpoint:
    """The socket `<path>.sock` where jobs ask, and those for whom it is there.

    The caller holds the lock `<path>.lock`, so that no other process has this path.
    `knows` tells whether a verb can be asked for here. A request has to name this
    process by its key, but for `open_verbs`, which any process of this user may use.
    """

    def __init__(
        self,
        path: str,
        key: str,
        lock: int,
        owner: tuple[str, str],
        knows: Callable[[str], bool],
        open_verbs: Collection[str] = (),
    ) -> None:
        self._lock = lock
        self._knows = knows
        self._open_verbs = open_verbs
        self._last_use = time.monotonic()
        self._socket_path = Path(f"{path}.sock")
        self._files = [Path(f"{path}{suffix}") for suffix in (".sock", ".log", ".lock")]
        self._key = key
        self._owner = owner
        # Left by a server that was killed.
        self._socket_path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self.listener.bind(str(self._socket_path))
        finally:
            os.umask(before)
        self.listener.listen(socket.SOMAXCONN)
        self._inode = self._socket_path.stat().st_ino

    def receive(self, connection: socket.socket, max_files: int = 0) -> Request | None:
        """The request of a client that has connected.

        None when it is not for this process, or no request at all: the client has been
        told so, and the connection is closed.
        """
        self.used()
        request = None
        try:
            request = read_request(connection, max_files)
            if not self._knows(request.verb):
                raise UserError(f"Unknown request {request.verb!r}.")
            if request.verb not in self._open_verbs and request.key != self._key:
                raise UserError(
                    "This process serves another version or run: "
                    f"{self._key!r}, not {request.key!r}."
                )
        except Exception as error:
            if request is not None:
                request.close_files()
            answer(connection, False, explain(error))
            return None
        return request

    def used(self) -> None:
        """Note that somebody needs this process now."""
        self._last_use = time.monotonic()

    def is_idle(self) -> bool:
        """Whether nobody has needed this process for a while."""
        return time.monotonic() - self._last_use > IDLE_SECONDS

    def is_owned(self) -> bool:
        """Whether the owner lives."""
        pid, started = self._owner
        owner = process_information(int(pid))
        return owner is not None and owner[1] == started

    def is_found(self) -> bool:
        """Whether jobs can find the socket: who empties /tmp takes it away."""
        try:
            return self._socket_path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def last_connections(self) -> list[socket.socket]:
        """Take the socket away, and give those that had connected before.

        Later ones start a process of their own. Where somebody else has taken it away,
        they may do so at once, while this process finishes what it is at.
        """
        if self.is_found():
            self._socket_path.unlink(missing_ok=True)
        else:
            self._files.clear()
            self.close_lock()
        self.listener.setblocking(False)
        connections = []
        with suppress(BlockingIOError):
            while True:
                connections.append(self.listener.accept()[0])
        self.listener.close()
        return connections

    def close_lock(self) -> None:
        """Let others have this process's place, which a forked child must not hold."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove_files(self) -> None:
        """Leave nothing behind; a successor's files, at the same place, are its own."""
        if self.listener.fileno() >= 0 and not self.is_found():
            return
        for file in self._files:
            file.unlink(missing_ok=True)


def start(
    arguments: Sequence[str],
    knows: Callable[[str], bool],
    open_verbs: Collection[str] = (),
) -> Endpoint:
    """Become the process that `service.Service` has started with these arguments.

    See `Endpoint` for `knows` and `open_verbs`.
    """
    path, key, lock, *owner = arguments
    # Should anything here start processes, the lock is not theirs.
    os.set_inheritable(int(lock), False)
    print(f"Process {os.getpid()}: {key}", flush=True)
    # Asked to abort (`waiting.for_answer`), it writes its stacks, not its memory.
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches this process, too, and is for the owner to act on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup, SIGHUP is ignored, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    endpoint = Endpoint(path, key, int(lock), (owner[0], owner[1]), knows, open_verbs)
    remove_what_dead_servers_left(Path(path).parent)
    return endpoint


def remove_what_dead_servers_left(folder: Path) -> None:
    for lock_path in folder.glob("*.lock"):
        with suppress(OSError):
            # Fresh logs are still to be shown by the clients of the server that died.
            if time.time() - lock_path.stat().st_mtime < _SECONDS_TO_KEEP_LOGS:
                continue
            lock = locks.try_lock(str(lock_path))
            if lock is not None:
                for suffix in (".sock", ".log", ".lock"):
                    lock_path.with_suffix(suffix).unlink(missing_ok=True)
                os.close(lock)
