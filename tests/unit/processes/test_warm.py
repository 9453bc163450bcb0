"""The warm process and its jobs: what can go wrong between three processes.

The jobs take no time; see `test_warm_training` for real ones.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from casesim.processes import endpoint, service, warm

from . import hosts
from .hosts import SECONDS, is_alive, wait_until
from .warm_jobs import SCRIPTS, Host

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere jobs do their work themselves"
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with hosts.short_folder() as folder, closing(Host(folder)) as host:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield host


def test_jobs_are_children_of_one_process(host: Host) -> None:
    assert host.run("say", text="a")[0] == 0
    assert host.run("say", text="b")[0] == 0
    (first, parent), (second, same) = host.notes("say")
    assert first != second
    assert parent == same
    assert {parent} == host.servers()


def test_log_gets_all_that_a_job_prints(host: Host) -> None:
    host.environment["CUDA_VISIBLE_DEVICES"] = "7"
    host.run("leave", status=0)
    host.environment["CUDA_VISIBLE_DEVICES"] = "5"
    status, log = host.run("say", text="hello", variable="CUDA_VISIBLE_DEVICES")
    assert status == 0
    assert log == "hello 5\nfrom a process of its own\non the other stream\n"


def test_log_is_written_as_the_job_prints(host: Host) -> None:
    job = host.start("hold")
    wait_until(lambda: "begun" in host.log())
    assert job.poll() is None
    (host.folder / "go").touch()
    assert job.wait(SECONDS) == 0
    assert host.log() == "begun\nfinished\n"


def test_users_mistake_has_no_traceback(host: Host) -> None:
    assert host.run("mistake") == (1, "Error: the file is missing\n")


def test_bug_has_one(host: Host) -> None:
    status, log = host.run("bug")
    assert status == 1
    assert log.count("Traceback") == 1
    assert "ZeroDivisionError: a bug" in log


def test_exit_status_is_kept(host: Host) -> None:
    assert host.run("leave", status=77) == (77, "")


def test_killed_child_fails_its_job_alone(host: Host) -> None:
    status, log = host.run("killed")
    assert status == 1
    assert "killed by SIGKILL" in log
    assert "mem_mb" in log
    assert "Traceback" not in log
    assert host.run("say", text="a")[0] == 0
    assert host.notes("say")[0][1] == host.notes("killed")[0][1]


def test_killed_job_takes_its_child_with_it(host: Host) -> None:
    (host.folder / "checkpoint").write_text("of five minutes ago")
    job = host.start("hold")
    child, parent = host.begun()
    job.kill()
    job.wait()
    # The next attempt comes at once: the first has ended when it begins.
    again = host.start("hold")
    _, same = host.begun(number=2)
    assert not is_alive(child)
    assert same == parent
    assert (host.folder / "checkpoint").read_text() == "of five minutes ago"
    (host.folder / "go").touch()
    assert again.wait(SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("group", [False, True])
def test_stopped_job_leaves_its_checkpoint(
    host: Host, number: signal.Signals, group: bool
) -> None:
    job = host.start("hold", own_group=True)
    child, _ = host.begun()
    assert os.getpgid(child) == job.pid
    if group:
        os.killpg(job.pid, number)
        # Snakemake passes on what the whole group has got.
        with suppress(ProcessLookupError):
            job.send_signal(number)
    else:
        job.send_signal(number)
    assert job.wait(SECONDS) == 128 + number
    assert (host.folder / "checkpoint").read_text() == str(int(number))
    assert not is_alive(child)
    assert "Traceback" not in host.log()


@pytest.mark.parametrize(("told", "status"), [(True, 143), (False, -15)])
def test_status_of_a_stopped_job_outlives_late_signals(
    host: Host, told: bool, status: int
) -> None:
    host.environment["LATE_SIGNAL"] = "1"
    job = host.start("hold")
    host.begun()
    if told:
        job.terminate()
    else:
        (host.folder / "go").touch()
    assert job.wait(SECONDS) == status


def test_interrupt_at_the_terminal_leaves_the_warm_process_to_its_owner(
    host: Host,
) -> None:
    job = host.start("hold", own_group=True)
    _, parent = host.begun()
    os.killpg(job.pid, signal.SIGINT)
    job.wait(SECONDS)
    host.run("say", text="a")
    assert host.notes("say")[0][1] == parent


def test_killed_warm_process_fails_its_jobs(host: Host) -> None:
    job = host.start("hold")
    child, parent = host.begun()
    os.kill(parent, signal.SIGKILL)
    assert job.wait(SECONDS) == 1
    assert not is_alive(child)
    assert (host.folder / "checkpoint").exists()
    assert "ended in the middle of this request" in host.log()
    assert f"process {child}: hold" in host.log()
    (host.folder / "go").touch()
    assert host.run("hold")[0] == 0
    assert host.notes("c")[1][1] != parent


def test_jobs_run_side_by_side(host: Host) -> None:
    both = [host.start("hold", f"log{n}", label=f"c{n}") for n in range(2)]
    (_, parent), (_, same) = host.begun("c0"), host.begun("c1")
    assert parent == same
    # One that is killed harms not the other, whose connection its child has let go.
    both[0].kill()
    both[0].wait()
    wait_until(lambda: not is_alive(host.notes("c0")[0][0]))
    (host.folder / "go").touch()
    assert both[1].wait(SECONDS) == 0


def test_no_child_holds_the_connection_of_another(host: Host) -> None:
    first = host.start("hold", "log0", label="c0")
    child, _ = host.begun("c0")
    second = host.start("hold", "log1", label="c1")
    host.begun("c1")
    os.kill(child, signal.SIGKILL)
    assert first.wait(10) == 1
    assert second.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["hold", "leave"])
def test_all_ends_with_snakemake(host: Host, number: int, name: str) -> None:
    snakemake = host.folder / "snakemake"
    snakemake.write_text(
        "import subprocess, sys, time\n"
        "subprocess.run(sys.argv[1:])\n"
        "open('job_ended', 'w').close()\n"
        "time.sleep(600)\n"
    )
    values = {"status": 0} if name == "leave" else {}
    command = [sys.executable, str(snakemake), *host.arguments("log", name, **values)]
    with subprocess.Popen(command, cwd=host.folder, env=host.environment) as owner:
        if name == "hold":
            child, parent = host.begun()
        else:
            wait_until((host.folder / "job_ended").exists)
            (parent,) = host.servers()
            child = parent
        assert is_alive(parent)
        owner.send_signal(number)
        # Nobody has taken notice of the owner's end: it is a zombie all the time.
        wait_until(lambda: not is_alive(parent), 20)
    assert not is_alive(child)
    assert not list(host.sockets.glob("warm-*"))
    if name == "hold":
        assert (host.folder / "checkpoint").read_text() == str(int(signal.SIGTERM))
        assert "ended in the middle" not in host.log()


def test_child_that_will_not_stop_is_killed(host: Host) -> None:
    text = host.server.read_text()
    short = "warm_server._SECONDS_TO_STOP = 0.5\nsys.exit(warm"
    host.server.write_text(text.replace("sys.exit(warm", short))
    job = host.start("stubborn")
    child, parent = host.begun("stubborn")
    os.kill(parent, signal.SIGTERM)
    wait_until(lambda: not is_alive(parent), 20)
    assert not is_alive(child)
    assert job.wait(SECONDS) == 1
    assert "killed by SIGKILL" in host.log()


@pytest.mark.parametrize("how", ["config", "system"])
def test_job_does_its_work_itself_where_no_process_may_outlive_it(
    host: Host, how: str
) -> None:
    if how == "config":
        host.environment["CASESIM_RESIDENT"] = "0"
    else:
        client = host.folder / "job.py"
        client.write_text(client.read_text().replace("with logged", _DARWIN, 1))
    host.command = ""
    assert host.run("here", a=[1, "b"]) == (0, "here {'a': [1, 'b']}\n")
    assert not host.servers()


_DARWIN = "sys.platform = 'darwin'\nwith logged"


def test_job_that_stands_still_says_where_and_ends(host: Host) -> None:
    host.environment["CASESIM_STALL_SECONDS"] = "1"
    status, log = host.run("hold", label="still")
    assert status == 1
    assert "Timeout" in log
    assert "in hold" in log
    assert host.run("say", text="a")[0] == 0
    assert host.notes("say")[0][1] == host.notes("still")[0][1]


def test_job_that_logs_nothing_is_waited_for_with_words(host: Host) -> None:
    host.environment["CASESIM_STALL_SECONDS"] = "12"
    job = host.start("hold")
    wait_until(lambda: "Nothing was logged" in host.log())
    (host.folder / "go").touch()
    assert job.wait(SECONDS) == 0
    _, parent = host.begun()
    assert f"(process {parent}, " in host.log()


def test_frozen_job_is_given_up(host: Host) -> None:
    host.environment["CASESIM_STALL_SECONDS"] = "1"
    job = host.start("hold")
    child, parent = host.begun()
    os.kill(child, signal.SIGSTOP)
    assert job.wait(SECONDS) == 1
    assert "it is given up" in host.log()
    wait_until(lambda: not is_alive(child))
    assert is_alive(parent)


def test_threads_wait_quietly(host: Host) -> None:
    """Else trainings collapse beside other programs; see benchmarks/busy.py."""
    for variable, value in service.QUIET_THREADS.items():
        log = host.run("say", text=variable, variable=variable)[1]
        assert log.startswith(f"{variable} {value}\n")


def test_idle_warm_process_ends_and_leaves_nothing(host: Host) -> None:
    host.environment["CASESIM_RESIDENT_IDLE_SECONDS"] = "0.1"
    job = host.start("hold")
    _, parent = host.begun()
    time.sleep(1.5 * endpoint.SECONDS_BETWEEN_LOOKS)
    assert is_alive(parent), "a job is under way"
    (host.folder / "go").touch()
    assert job.wait(SECONDS) == 0
    wait_until(lambda: not is_alive(parent), 10)
    assert not list(host.sockets.iterdir())


def test_emptied_tmp_costs_no_job(host: Host) -> None:
    """A training goes on beside a successor whose files stay its own."""
    job = host.start("hold")
    child, parent = host.begun()
    shutil.rmtree(host.sockets)
    assert host.run("say", "other", text="a")[0] == 0
    successor = host.notes("say")[0][1]
    assert is_alive(child)
    assert successor != parent
    (host.folder / "go").touch()
    assert job.wait(SECONDS) == 0
    wait_until(lambda: not is_alive(parent), 10)
    assert host.run("say", "another", text="b")[0] == 0
    assert host.notes("say")[1][1] == successor


def test_jobs_that_start_at_once_start_one_process(host: Host) -> None:
    together = [host.start("say", f"log{n}", text="a") for n in range(4)]
    assert [job.wait(SECONDS) for job in together] == [0] * 4
    assert len({parent for _, parent in host.notes("say")}) == 1


def test_failing_import_is_told_to_the_job(host: Host) -> None:
    (host.folder / "broken").touch()
    status, log = host.run("say", text="a")
    assert status == 1
    assert "ImportError: no module named torch" in log
    (host.folder / "broken").unlink()
    assert host.run("say", text="a")[0] == 0


def test_warm_process_that_does_not_start_says_why(host: Host) -> None:
    host.server.write_text("raise SystemError('why')")
    status, log = host.run("say", text="a")
    assert status == 1
    assert "ended while starting" in log
    assert "SystemError: why" in log


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (["eval", "k", "/", "{}", "{}"], "Unknown request 'eval'"),
        (["say", "k", "/", "{}", "{}"], "another version or run"),
        (["say", "", "/", "{}", "{}"], "two open files"),
        (["say", "", "/", "{}"], "two open files"),
    ],
)
def test_malformed_requests_are_refused(
    host: Host, content: list[str], answer: str
) -> None:
    host.run("say", text="a")
    (path,) = host.sockets.glob("warm-*.sock")
    log = path.with_suffix(".log").read_text()
    key = log.splitlines()[0].split(": ", 1)[1]
    content[1] = content[1] or key
    connection = service.dial(str(path))
    assert connection is not None
    result = service.exchange(connection, content, "warm process", 60)
    assert result is not None
    assert not result[0]
    assert answer in result[1]
    assert host.run("say", text="b")[0] == 0
    assert len({parent for _, parent in host.notes("say")}) == 1


def test_client_that_says_nothing_is_not_waited_for(host: Host) -> None:
    host.run("say", text="a")
    (path,) = host.sockets.glob("warm-*.sock")
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(path))
        connection.shutdown(socket.SHUT_WR)
        assert b"not protocol" in connection.recv(1000)
    assert host.run("say", text="b")[0] == 0


def test_only_the_user_can_reach_it(host: Host) -> None:
    host.run("say", text="a")
    (path,) = host.sockets.glob("warm-*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    for file in host.sockets.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert len(bytes(path)) < 100


def test_client_is_light(host: Host) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import casesim.processes.warm\n"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"numpy", "torch", "nnunetv2"} & set(loaded)


def test_imports_touch_no_gpu_and_start_no_thread_but_numexprs() -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import numexpr, torch\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "import blosc2\n"
        "numexprs = len(os.listdir('/proc/self/task')) - before\n"
        "def touched(*_): raise SystemExit('the GPU was touched')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'):\n"
        "    setattr(torch.cuda, name, touched)\n"
        "from importlib import import_module\n"
        "from casesim.processes import jobs\n"
        "for room in ('nnunet', 'training', 'evidence'):\n"
        "    module = f'casesim.{room}.jobs'\n"
        "    for name in import_module(module).IMPORTS:\n"
        "        jobs.prepare(f'{module}:{name}')\n"
        "print(before, len(os.listdir('/proc/self/task')) - numexprs)"
    )
    environment = os.environ | warm._environment() | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after == before
