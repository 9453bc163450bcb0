"""The client of the resident predictor: what a `predict` job runs.

Starting Python, torch and CUDA and loading a model takes seconds, the network tenths of
one. So the job hands its arguments to a process that has all that loaded: one for each
device and each run of the workflow, started by the first client that needs it (see
`resident_server`), and gone soon after the run.

A request is the line `casesim-resident <protocol> <bytes>` and that many bytes: fields
of text, separated by null characters. They are paths and settings, never code. The
first field says what to do, the second names the server that is meant, the third is the
working directory, the rest are the client's arguments. The answer is a line `ok
<bytes>` or `failed <bytes>`, and a text for the job's log.

Only light modules are imported, for the reason given in `devices`: the bare `_socket`
saves 10 ms on each of thousands of jobs, and arguments passed on unparsed save argparse
and json.
"""
# ruff: noqa: PTH100, PTH108, PTH109, PTH110, PTH116, PTH118, PTH119, PTH120, PTH123
# ruff: noqa: PTH208

from __future__ import annotations

import os
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket
from zlib import crc32

from . import devices
from .errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

PROTOCOL = 1
MAX_REQUEST_BYTES = 1 << 20
SERVE = "--serve"

_START_SECONDS = 120.0
_SECONDS_BETWEEN_LOOKS = 0.02
_RELEASE_SECONDS = 600.0
_LOG_TAIL_LINES = 20
# A predictor that dies costs its jobs a few seconds, not a failure: in a submission of
# many cells, a failed one is done only by the next run of the workflow.
_ATTEMPTS = 2

# Threads that wait for work by spinning take the cores from the training beside them.
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def main(program: str, arguments: list[str]) -> int:
    """Run the client, or the server when the arguments say so; return the exit status.

    `program` is the script that calls this: a server is started by running it again.
    """
    try:
        if arguments[:1] == [SERVE]:
            from .resident_server import serve

            return serve(arguments[1:])
        resident = os.environ.get("CASESIM_RESIDENT") != "0"
        if "--no-resident" in arguments or not resident:
            return _predict_here(program, arguments)
        return _predict_in_resident(program, arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _predict_here(program: str, arguments: list[str]) -> int:
    """The same prediction in this process, which is started again with its packages."""
    if sys.flags.no_site:
        os.execv(sys.executable, [sys.executable, program, *arguments])
    os.environ.update(_QUIET_THREADS)
    with devices.reserve(_number_of_gpus(arguments)) as slot:
        from .resident_server import predict_once

        device = devices.torch_device(slot.gpu)
        print(predict_once(os.getcwd(), arguments, device))
    return 0


def _predict_in_resident(program: str, arguments: list[str]) -> int:
    with devices.reserve(_number_of_gpus(arguments), shared=True) as slot:
        server = Server(slot, os.path.abspath(program))
        request = ["predict", server.key, os.getcwd(), *arguments]
        answer = None
        for _ in range(_ATTEMPTS):
            connection = server.connect()
            socket_file = server.socket_file()
            answer = exchange(connection, request)
            if answer is not None:
                break
            print(f"Error: {server.death()}", file=sys.stderr, flush=True)
            server.bury(socket_file)
        if answer is None:
            return 1
    succeeded, text = answer
    print(text, file=sys.stdout if succeeded else sys.stderr)
    return 0 if succeeded else 1


def _number_of_gpus(arguments: list[str]) -> int:
    """The value of `--gpu`, the one argument that the client itself needs."""
    try:
        return int(arguments[arguments.index("--gpu") + 1])
    except (ValueError, IndexError):
        raise UserError("predict needs --gpu followed by a whole number.") from None


class Server:
    """The resident predictor of one device, for one run and one version of the code."""

    def __init__(self, slot: devices.Slot, program: str) -> None:
        self._slot = slot
        self._program = program
        self._owner = find_owner()
        self.key = " ".join(
            (slot.name, *self._owner, program, sys.executable, _code_version())
        )
        name = f"{slot.name}-{self._owner[0]}-{crc32(os.fsencode(self.key)):08x}"
        self.path = os.path.join(devices.private_folder(), name)

    def connect(self) -> socket:
        """A connection to the server, which is started when there is none.

        Raises `UserError` with the end of the server's log when it does not start.
        """
        process: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            connection = dial(f"{self.path}.sock")
            if connection is not None:
                return connection
            if process is None:
                process = self._start()
            elif process.poll() is not None:
                raise UserError(
                    "The resident predictor ended while starting "
                    f"(status {process.returncode}). {self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise UserError(
                    "The resident predictor did not answer within "
                    f"{_START_SECONDS:.0f} s. {self._log_tail()}"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def socket_file(self) -> tuple[int, int] | None:
        """Which file the server's socket is: each server makes its own."""
        try:
            status = os.stat(f"{self.path}.sock")
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns

    def bury(self, socket_file: tuple[int, int] | None) -> None:
        """Wait until a server that dies is gone, unless it has a successor.

        The kernel takes a while to end it, and connects others to it until then.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self.socket_file() == socket_file and time.monotonic() < deadline:
            lock = devices.try_lock(f"{self.path}.lock")
            if lock is not None:
                if self.socket_file() is not None:
                    os.unlink(f"{self.path}.sock")
                os.close(lock)
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def death(self) -> str:
        """What to tell when it has died while a job waited."""
        return (
            "The resident predictor ended in the middle of this request: it was "
            "killed, or ran out of memory. The next attempt starts a new one. "
            f"{self._log_tail()}"
        )

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start the server, unless another client is doing so or it is just ending.

        The server inherits the lock, which so lasts as long as the server. It stays in
        the process group of its run, so that SLURM ends it with the job step; of this
        process it inherits nothing else, since Snakemake would wait for its own pipes
        to be closed.
        """
        lock = devices.try_lock(f"{self.path}.lock")
        if lock is None:
            return None
        import subprocess

        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        log = os.open(f"{self.path}.log", flags, 0o600)
        environment = os.environ | _QUIET_THREADS
        if self._slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._slot.gpu
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, self._program, SERVE),
                    *(self.path, self.key, self._slot.gpu or "", str(lock)),
                    *self._owner,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                cwd="/",
                env=environment,
            )
        finally:
            os.close(log)
            os.close(lock)

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


def exchange(connection: socket, fields: list[str]) -> tuple[bool, str] | None:
    """Send a request, and return the answer: None when the other side ended instead."""
    request = "\0".join(fields).encode(errors="surrogateescape")
    header = f"casesim-resident {PROTOCOL} {len(request)}\n".encode()
    parts = []
    try:
        connection.sendall(header + request)
        while part := connection.recv(1 << 16):
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


def release_memory(slot: devices.Slot) -> None:
    """Make every resident predictor of a device drop what it has loaded.

    It answers when it has finished what it was computing: even a request whose client
    was killed never overlaps with what the caller does next.
    """
    folder = devices.private_folder()
    for name in sorted(os.listdir(folder)):
        if not (name.startswith(f"{slot.name}-") and name.endswith(".sock")):
            continue
        connection = dial(os.path.join(folder, name))
        if connection is not None:
            connection.settimeout(_RELEASE_SECONDS)
            exchange(connection, ["release", "", "/"])


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
        if _is_snakemake(command):
            return str(pid), started
        pid = next_pid
    information = process_information(parent)
    return str(parent), "" if information is None else information[1]


def _is_snakemake(command: list[str]) -> bool:
    """Whether a command line is `snakemake`, `python .../snakemake` or `-m snakemake`.

    A shell that runs a job has the word in its script or in a path, too.
    """
    names = [os.path.basename(word) for word in command[:4]]
    if not names or not names[0].startswith("python"):
        return names[:1] == ["snakemake"]
    return any(name.removesuffix(".py") == "snakemake" for name in names[1:])


def process_information(pid: int) -> tuple[int, str, list[str]] | None:
    """A process's parent, start time and command line; None when it has ended.

    A process that has ended and waits for its parent to take notice counts as ended.
    """
    if not os.path.exists("/proc/self/stat"):
        return _process_information_by_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, can itself contain parentheses and spaces.
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = os.fsdecode(file.read()).split("\0")[:-1]
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[1]), fields[19].decode(), command


def _process_information_by_ps(pid: int) -> tuple[int, str, list[str]] | None:
    """The same where there is no /proc (macOS); start times are whole seconds there."""
    import subprocess

    shown = subprocess.run(
        ["ps", "-o", "stat=,ppid=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    ).stdout.split()
    if len(shown) < 7 or shown[0].startswith("Z"):
        return None
    return int(shown[1]), "-".join(shown[2:7]), shown[7:]


def _code_version() -> str:
    """What changes when a file of the package changes."""
    with os.scandir(os.path.dirname(os.path.abspath(__file__))) as entries:
        files = sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.name.endswith(".py")
        )
    return f"{PROTOCOL}-{crc32(repr(files).encode()):08x}"
