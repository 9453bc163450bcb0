"""Requests that no client of ours would send, to both processes beside the jobs."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from unit.processes import hosts, predictors, warm_jobs
from unit.processes.hosts import is_alive, wait_until

from casesim.errors import UserError
from casesim.inference import serving
from casesim.processes import endpoint

from .conftest import FULL, SEED

REQUESTS = 10_000 if FULL else 400
NOBODY = 65534

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Target:
    """A process beside the jobs, started by a client of its own kind."""

    def __init__(self, host: Any, kind: str) -> None:
        self.host, self.kind = host, kind
        self.serve()
        (self.path,) = host.sockets.glob("*.sock")
        log = self.path.with_suffix(".log").read_text()
        self.pid = int(log.splitlines()[0].split(":")[0].split()[1])
        self.key = log.splitlines()[0].split(": ", 1)[1]

    def serve(self) -> None:
        """Have one ordinary request done."""
        if self.kind == "warm":
            assert self.host.run("say", text="a")[0] == 0
        else:
            assert self.host.run()[0] == 0

    def good(self) -> bytes:
        """An ordinary request, key and all; of the warm process without its files."""
        if self.kind == "warm":
            fields = ["say", self.key, "/", "{}", json.dumps({"text": "a"})]
        else:
            fields = ["predict", self.key, str(self.host.folder)]
            fields += self.host.command()[4:]
        content = "\0".join(fields).encode()
        return b"casesim-resident 1 %d\n" % len(content) + content

    def send(self, content: bytes, files: list[int], hang_up: bool) -> bytes:
        """What it answers; b"" where the client does not stay to hear it."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(60)
            connection.connect(str(self.path))
            with suppress(BrokenPipeError, ConnectionResetError):  # is an answer, too
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))]
                connection.sendmsg([content[:1]], rights if files else [])
                connection.sendall(content[1:])
                connection.shutdown(socket.SHUT_WR)
                if hang_up:
                    return b""
                answer = b""
                while part := connection.recv(1 << 16):
                    answer += part
                return answer
        return b"failed "

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@pytest.fixture(params=["resident", "warm"])
def target(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Target]:
    kinds: dict[str, Any] = {"resident": predictors.Host, "warm": warm_jobs.Host}
    with hosts.short_folder() as folder, closing(kinds[request.param](folder)) as host:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield Target(host, request.param)


def spoil(draw: random.Random, good: bytes) -> bytes:
    """Something near a request, or far from one."""
    header, _, content = good.partition(b"\n")
    kind = draw.randrange(9)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 200))
    if kind == 1:
        return b"casesim-resident 1 %d\n" % draw.randrange(200) + draw.randbytes(
            draw.randrange(200)
        )
    if kind == 2:
        return good[: draw.randrange(1, len(good))]
    if kind == 3:
        words = (b"-1", b"1e9", b"99999999999", b"0", b"\xff", b"1_0", b"", b" 1")
        return b"casesim-resident 1 " + draw.choice(words) + b"\n" + content
    if kind == 4:
        text = bytearray(content)
        for _ in range(draw.randrange(1, 6)):
            text[draw.randrange(len(text))] = draw.randrange(256)
        return header + b"\n" + bytes(text)
    fields = content.split(b"\0")
    if kind == 5:
        del fields[draw.randrange(len(fields))]
    elif kind == 6:
        evil = (
            b"../../etc/passwd",
            b"/dev/full",
            b"\xff\xfe",
            b"",
            b"-1",
            b"'; rm -rf /",
        )
        fields[draw.randrange(2, len(fields))] = draw.choice(evil)
    elif kind == 7:
        fields[0] = draw.choice((b"release ", b"os:system", b"PREDICT", b"", b"\n"))
    else:
        fields += [draw.randbytes(3) for _ in range(draw.randrange(1, 400))]
        draw.shuffle(fields)
    joined = b"\0".join(fields)
    return b"casesim-resident 1 %d\n" % len(joined) + joined


@pytest.mark.timeout(3600)
def test_random_requests_harm_nobody(target: Target, count: Counter[str]) -> None:
    draw, good = random.Random(SEED), target.good()
    before, answered = target.open_files(), 0
    with (target.host.folder / "a file").open("w") as file:
        for _ in range(REQUESTS):
            content = spoil(draw, good) or b"x"
            files = [file.fileno()] * draw.choice((0, 0, 0, 1, 2, 3, 9))
            hang_up = draw.random() < 0.2
            said = target.send(content, files, hang_up)
            # Whoever sends no more, while a request waits, is taken to have hung up.
            assert said.startswith((b"failed ", b"ok ")) or not said, content
            answered += bool(said)
            count[f"requests tried, {target.kind} process"] += 1
    assert answered > REQUESTS / 2
    # The same process still serves, and has kept nothing of them.
    target.serve()
    assert is_alive(target.pid)
    assert list(target.host.sockets.glob("*.sock")) == [target.path]
    wait_until(lambda: target.open_files() <= before + 2)
    assert "Traceback" not in target.path.with_suffix(".log").read_text()


def test_slow_client_is_not_waited_for(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends a byte now and then, each within the time for one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    monkeypatch.setattr(endpoint, "_SECONDS_TO_EXCHANGE", 0.5)
    with closing(ours), closing(theirs):
        ours.sendall(b"casesim-resident 1 5\nabc")
        with pytest.raises((UserError, TimeoutError)):
            endpoint.read_request(theirs)


CONNECT = """
import os, socket, sys
os.setgid({user}); os.setuid({user})
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
print(connection.recv(1000).decode())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_other_users_are_refused(target: Target, count: Counter[str]) -> None:
    def connect() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                *(sys.executable, "-S", "-c", CONNECT.format(user=NOBODY)),
                str(target.path),
            ],
            capture_output=True,
            text=True,
            cwd="/",
        )

    assert "PermissionError" in connect().stderr
    # Even where the folder and the socket are open, by mistake.
    for path in (target.host.folder, target.host.sockets):
        path.chmod(0o755)
    target.path.chmod(0o666)
    assert f"another user than {NOBODY}" in connect().stdout
    for path in (target.host.folder, target.host.sockets):
        path.chmod(0o700)
    count["connections of another user refused"] += 2


@pytest.mark.parametrize("name", ["model", "case", "prediction", "score"])
@pytest.mark.parametrize("value", ["..", "../a", "a/../../b", "/a/../b", ""])
def test_names_and_paths_stay_in_their_folders(
    name: str, value: str, count: Counter[str]
) -> None:
    given = {
        **{"model": "m", "case": "c", "checkpoint": "c.pth", "data": "d", "label": "l"},
        **{"prediction": "p/c.nii.gz", "score": "s/c.json", "threads": "1", "gpu": "0"},
        **{"labels": "a=1", "regions": "A=1"},
    }
    arguments = [word for key, text in given.items() for word in (f"--{key}", text)]
    assert serving.parse_job("/study", arguments).score == Path("/study/s/c.json")
    arguments[arguments.index(f"--{name}") + 1] = value
    with pytest.raises(UserError, match="leaves its folder"):
        serving.parse_job("/study", arguments)
    count["names and paths refused"] += 1


def test_killed_in_the_middle_of_its_request(target: Target) -> None:
    """A client that is stopped, and later killed, while it sends."""
    code = (
        "import socket, sys, time\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "connection.sendall(b'casesim-resident 1 1000\\npredict')\n"
        "print(flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target.path)], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.send_signal(signal.SIGSTOP)
        target.serve()
        client.kill()
    target.serve()
    assert is_alive(target.pid)
