"""How a resident predictor ends, and what it leaves behind: nothing."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from casesim.processes import endpoint

from .hosts import SECONDS, is_alive, wait_until
from .predictors import Host, hold_one_and_have_one_wait


def test_idle_server_ends_and_leaves_nothing(host: Host) -> None:
    host.run(CASESIM_RESIDENT_IDLE_SECONDS="0.1")
    pid = host.served_by()
    wait_until(lambda: not is_alive(pid))
    assert [file.name for file in host.sockets.iterdir()] == ["cpu0.device"]


def test_server_whose_socket_vanished_ends(host: Host) -> None:
    host.run()
    (path,) = host.sockets.glob("*.sock")
    path.unlink()
    wait_until(lambda: not is_alive(host.served_by()), 10)


def test_emptied_tmp_costs_no_cell(host: Host) -> None:
    """Who waits is served, beside a successor whose files stay its own."""
    first, waiting = hold_one_and_have_one_wait(host)
    shutil.rmtree(host.sockets)
    # A new process, while the old one is still at work.
    assert host.run("m", "c3")[0] == 0
    (host.folder / "go").touch()
    for client in (first, waiting):
        assert client.wait(SECONDS) == 0
    old, new = host.served_by("c1"), host.served_by("c3")
    assert host.served_by("c2") == old != new
    wait_until(lambda: not is_alive(old), 10)
    assert host.run("m", "c4")[0] == 0
    assert host.served_by("c4") == new


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_server_leaves_nothing(host: Host, number: int) -> None:
    host.run()
    pid = host.served_by()
    os.kill(pid, number)
    wait_until(lambda: not is_alive(pid), 10)
    assert [file.name for file in host.sockets.iterdir()] == ["cpu0.device"]


def test_interrupt_at_the_terminal_is_left_to_the_owner(host: Host) -> None:
    host.run("m", "c1")
    os.kill(host.served_by("c1"), signal.SIGINT)
    host.run("m", "c2")
    assert host.served_by("c1") == host.served_by("c2")


def test_interrupted_client_ends_without_a_traceback(host: Host) -> None:
    client = host.start("hold")
    wait_until(lambda: host.said("run c"))
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=SECONDS)
    assert client.returncode == 130
    assert err == ""
    (host.folder / "go").touch()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("model", ["m", "hold"])
def test_server_ends_with_snakemake(host: Host, number: int, model: str) -> None:
    """Snakemake is found behind the shell of its job, whose text names it as well."""
    snakemake = host.folder / "snakemake"
    snakemake.write_text(
        "import subprocess, sys, time\n"
        "subprocess.run(['bash', '-c', sys.argv[1] + '; true # snakemake'])\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(snakemake), shlex.join(host.command(model))],
        cwd=host.folder,
        env=host.environment,
    ) as owner:
        (pid,) = wait_until(lambda: host.said("run c"))
        if model == "m":
            wait_until((host.folder / "c.json").exists)
            time.sleep(1.5 * endpoint.SECONDS_BETWEEN_LOOKS)
        assert is_alive(pid)
        owner.send_signal(number)
        # Nobody has taken notice of the owner's end: it is a zombie all the time.
        wait_until(lambda: not is_alive(pid), 10)
        assert not list(host.sockets.glob("*.sock"))


def test_logs_of_dead_servers_are_removed_after_a_while(host: Host) -> None:
    host.run("m", "c1")
    pid = host.served_by("c1")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    left = {file.stem for file in host.sockets.glob("*.lock")}
    assert len(left) == 1
    endpoint.remove_what_dead_servers_left(host.sockets)
    assert {file.stem for file in host.sockets.glob("*.log")} == left
    for file in host.sockets.glob("*.lock"):
        os.utime(file, (0, 0))

    def is_clean() -> bool:
        endpoint.remove_what_dead_servers_left(host.sockets)
        return [file.name for file in host.sockets.iterdir()] == ["cpu0.device"]

    # A dead process's last thread can hold its lock for a moment longer.
    wait_until(is_clean)


def test_logs_of_living_servers_are_kept(host: Host) -> None:
    host.run()
    for file in host.sockets.glob("*.lock"):
        os.utime(file, (0, 0))
    endpoint.remove_what_dead_servers_left(host.sockets)
    assert len(list(host.sockets.glob("*.log"))) == 1
