"""The resident predictor and its client: what can go wrong between two processes.

How a predictor ends is in `test_resident_end`. What computes is replaced by something
that takes no time; see `test_resident_network` for a real one.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from casesim.processes import devices, service

from .hosts import SECONDS, is_alive, wait_until
from .predictors import SCRIPTS, Host, hold_one_and_have_one_wait


def test_second_client_uses_the_first_ones_server(host: Host) -> None:
    assert host.run("m", "c1") == (0, "done c1\n", "")
    assert host.run("m", "c2") == (0, "done c2\n", "")
    assert host.served_by("c1") == host.served_by("c2")
    assert len(host.said("start")) == 1


def test_only_the_user_can_reach_the_server(host: Host) -> None:
    host.run()
    (path,) = host.sockets.glob("*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert host.sockets.stat().st_mode & 0o777 == 0o700
    for file in host.sockets.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert len(bytes(path)) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_keeps_freed_memory_unless_the_user_says_otherwise(
    host: Host,
) -> None:
    host.environment["MALLOC_TRIM_THRESHOLD_"] = "131072"
    host.run()
    text = Path(f"/proc/{host.served_by()}/environ").read_bytes().decode()
    environment = dict(line.split("=", 1) for line in text.split("\0")[:-1])
    expected = service.KEEP_FREED_MEMORY | {"MALLOC_TRIM_THRESHOLD_": "131072"}
    assert expected.items() <= environment.items()


def test_results_get_the_modes_that_other_files_get(host: Host) -> None:
    host.run()
    (host.folder / "other").touch()
    modes = {(host.folder / name).stat().st_mode for name in ("other", "c.json")}
    assert len(modes) == 1


def test_clients_that_start_at_once_start_one_server(host: Host) -> None:
    host.pretend_to_have_a_gpu()
    clients = [host.start("m", f"c{number}") for number in range(4)]
    assert [client.wait(SECONDS) for client in clients] == [0] * 4
    assert len(host.said("start")) == 1


def test_clients_on_the_cpu_have_servers_of_their_own(host: Host) -> None:
    clients = [host.start("hold", f"c{number}") for number in range(2)]
    wait_until(lambda: host.said("run c0") and host.said("run c1"))
    (host.folder / "go").touch()
    assert [client.wait(SECONDS) for client in clients] == [0, 0]
    assert host.served_by("c0") != host.served_by("c1")


def test_waiting_requests_are_loaded_ahead(host: Host) -> None:
    first, second = hold_one_and_have_one_wait(host)
    assert not host.said("run c2")
    (host.folder / "go").touch()
    assert first.wait(SECONDS) == second.wait(SECONDS) == 0


def test_client_killed_while_waiting_is_passed_over(host: Host) -> None:
    first, second = hold_one_and_have_one_wait(host)
    second.kill()
    second.wait()
    (host.folder / "go").touch()
    assert first.wait(SECONDS) == 0
    assert host.run("m", "c3")[0] == 0
    assert host.served_by("c3") == host.served_by("c1")
    assert not host.said("run c2")


def test_client_killed_while_served_harms_nobody(host: Host) -> None:
    client = host.start("hold", "c1")
    (pid,) = wait_until(lambda: host.said("run c1"))
    client.kill()
    client.wait()
    second = host.start("m", "c2")
    (host.folder / "go").touch()
    assert second.wait(SECONDS) == 0
    assert host.served_by("c2") == pid


def test_users_mistake_fails_its_job_alone(host: Host) -> None:
    host.run("m", "c0")
    status, out, err = host.run("missing", "c1")
    assert (status, out) == (1, "")
    assert err == f"Error: {host.folder / 'go'} is missing.\n"
    assert host.run("m", "c2")[0] == 0
    assert host.served_by("c2") == host.served_by("c0")


def test_bug_is_told_to_the_job_that_met_it(host: Host) -> None:
    status, _, err = host.run("bug")
    assert status == 1
    assert "ZeroDivisionError: a bug" in err
    assert "Traceback" in err
    assert host.run("m")[0] == 0
    assert len(host.said("start")) == 1


def test_broken_cuda_context_ends_the_server(host: Host) -> None:
    status, _, err = host.run("cuda")
    assert status == 1
    assert "illegal memory access" in err
    (pid,) = host.said("start")
    wait_until(lambda: not is_alive(pid))
    assert host.run("m")[0] == 0
    assert host.served_by() != pid


def test_server_killed_once_in_the_middle_of_a_request(host: Host) -> None:
    client = host.start("hold", "c")
    (pid,) = wait_until(lambda: host.said("run c"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(host.said("run c")) == 2)
    (host.folder / "go").touch()
    _, err = client.communicate(timeout=SECONDS)
    assert client.returncode == 0
    assert "ended in the middle of this request" in err
    assert host.served_by("c") != pid


def test_server_killed_at_every_attempt(host: Host) -> None:
    client = host.start("hold", "c")
    (pid,) = wait_until(lambda: host.said("run c"))
    os.kill(pid, signal.SIGKILL)
    pids = wait_until(lambda: len(host.said("run c")) == 2 and host.said("run c"))
    os.kill(pids[-1], signal.SIGKILL)
    _, err = client.communicate(timeout=SECONDS)
    assert client.returncode == 1
    assert err.count("ended in the middle of this request") == 2
    assert f"Process {pid}" in err
    assert f"Process {pids[-1]}" in err
    assert host.run("m", "c")[0] == 0
    assert host.served_by() not in pids


def test_last_words_of_a_crashed_server_are_shown(host: Host) -> None:
    status, _, err = host.run("crash")
    assert status == 1
    assert "the last words" in err


def test_server_that_cannot_start_says_why(host: Host) -> None:
    (host.folder / "broken").touch()
    status, _, err = host.run()
    assert status == 1
    assert "no module named torch" in err
    (host.folder / "broken").unlink()
    # Who comes while it ends is told the same.
    wait_until(lambda: not list(host.sockets.glob("*.sock")))
    assert host.run()[0] == 0


def test_server_that_dies_at_once_is_not_waited_for(host: Host) -> None:
    text = host.program.read_text()
    host.program.write_text(
        text.replace(
            "from casesim.processes import resident_server", "raise SystemError('why')"
        )
    )
    status, _, err = host.run()
    assert status == 1
    assert "ended while starting" in err
    assert "SystemError: why" in err


def test_stale_socket_is_replaced(host: Host) -> None:
    host.run()
    (path,) = host.sockets.glob("*.sock")
    pid = host.served_by()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    assert path.exists()
    assert host.run()[0] == 0
    assert host.served_by() != pid


def test_other_version_of_the_code_has_its_own_server(host: Host) -> None:
    # A copy of the package, because this one is being tested by others.
    copy = host.folder / "scripts"
    shutil.copytree(SCRIPTS / "casesim", copy / "casesim")
    text = host.program.read_text()
    host.program.write_text(text.replace(str(SCRIPTS), str(copy)))
    host.run("m", "c1")
    host.run("m", "c2")
    with (copy / "casesim/errors.py").open("a") as file:
        file.write("\n# edited\n")
    host.run("m", "c3")
    assert host.served_by("c1") == host.served_by("c2") != host.served_by("c3")


def request(host: Host, header: bytes, content: bytes = b"") -> str:
    """What a server answers to these bytes."""
    (path,) = host.sockets.glob("*.sock")
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(path))
        connection.sendall(header + content)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read().decode()


@pytest.mark.parametrize(
    ("header", "content", "answer"),
    [
        (b"GET / HTTP/1.1\n", b"", "not protocol"),
        (b"casesim-resident 99 0\n", b"", "not protocol"),
        (b"casesim-resident 1 99999999\n", b"", "too long"),
        (b"casesim-resident 1 -1\n", b"", "too long"),
        (b"casesim-resident 1 x\n", b"", "ValueError"),
        (b"casesim-resident 1 50\n", b"predict", "ended early"),
        (b"casesim-resident 1 9\n", b"eval\0key\0", "Unknown request 'eval'"),
        (b"casesim-resident 1 14\n", b"predict\0key\0/a", "another version or run"),
        (b"", b"", "not protocol"),
        (b"x" * 5000, b"", "not protocol"),
    ],
)
def test_malformed_requests_are_refused(
    host: Host, header: bytes, content: bytes, answer: str
) -> None:
    host.run("m", "c1")
    assert answer in request(host, header, content)
    assert host.run("m", "c2")[0] == 0
    assert host.served_by("c2") == host.served_by("c1")


def test_wrong_argument_is_named(host: Host) -> None:
    status, _, err = host.run("m", "c", "--mirorring")
    assert status == 1
    assert "unrecognized arguments: --mirorring" in err
    assert "Traceback" not in err


def test_training_makes_the_server_give_memory_back(host: Host) -> None:
    host.run()
    with devices.reserve(0) as slot:
        service.release(slot.name)
    assert host.said("release") == [host.served_by()]
    assert host.run("m", "c2")[0] == 0


def test_training_waits_for_a_request_whose_client_was_killed(host: Host) -> None:
    client = host.start("hold", "c")
    wait_until(lambda: host.said("run c"))
    client.kill()
    client.wait()
    with devices.reserve(0) as slot:
        released = threading.Thread(target=service.release, args=[slot.name])
        released.start()
        released.join(0.3)
        assert released.is_alive()
        (host.folder / "go").touch()
        released.join(SECONDS)
    assert [note.split(" ", 1)[1] for note in host.notes()][-2:] == ["run c", "release"]


def test_request_without_an_answer_is_told_and_ended(host: Host) -> None:
    """The predictor hangs: its stacks are shown, and the next attempt gets another."""
    status, _, err = host.run("hold", CASESIM_ANSWER_SECONDS="1")
    assert status == 1
    assert len(set(host.said("run c"))) == 2
    assert "Waiting for the resident predictor (process " in err
    assert err.count("ended in the middle of this request") == 2
    assert "Fatal Python error: Aborted" in err
    assert "in run" in err
    assert host.run("m", "c2")[0] == 0


def test_frozen_server_is_ended(host: Host) -> None:
    client = host.start("hold", CASESIM_ANSWER_SECONDS="2")
    (pid,) = wait_until(lambda: host.said("run c"))
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: len(host.said("run c")) == 2)
    (host.folder / "go").touch()
    _, err = client.communicate(timeout=SECONDS)
    assert client.returncode == 0
    assert f"(process {pid}, predict.py, stopped, " in err


def test_predictor_that_keeps_its_memory_is_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for what it computes: its client was killed."""
    client = host.start("hold", "c")
    (pid,) = wait_until(lambda: host.said("run c"))
    client.kill()
    client.wait()
    monkeypatch.setattr(service, "_RELEASE_SECONDS", 1.0)
    with devices.reserve(0) as slot:
        service.release(slot.name)
    wait_until(lambda: not is_alive(pid))
    assert (
        f"memory of the resident predictor (process {pid}, " in capsys.readouterr().err
    )
    assert host.run("m", "c2")[0] == 0


def test_client_needs_no_packages_and_few_modules(host: Host) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "before = set(sys.modules)\n"
        "import casesim.processes.resident\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.check_output(
        [sys.executable, "-S", "-E", "-c", code], text=True
    ).split()
    slow = {"argparse", "json", "re", "socket", "subprocess", "pathlib", "typing"}
    assert not slow & set(loaded)
    assert len(loaded) < 20
