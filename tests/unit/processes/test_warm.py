"""The warm process and its jobs: what can go wrong between three processes.

Most tests replace the jobs by ones that take no time; the last ones train a small real
network.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from unit.conftest import TinyCohort
from unit.processes.hosts import SECONDS, is_alive, wait_until

from casesim.processes import background, background_server, jobs, stopping, warm

from . import hosts

SCRIPTS = Path(warm.__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere jobs do their work themselves"
)

# What a job does that is no training: each notes its process and its parent.
SERVER = f"""
import json, os, pathlib, subprocess, sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from casesim.processes import jobs, warm_server
from casesim.errors import UserError
from casesim.processes.stopping import Stop

def note(name):
    line = json.dumps([name, os.getpid(), os.getppid()])
    with pathlib.Path("notes.txt").open("a") as file:
        file.write(line + "\\n")

def say(text, variable="PATH"):
    note("say")
    print(text, os.environ.get(variable))
    subprocess.run(["echo", "from a process of its own"])
    print("on the other stream", file=sys.stderr)

def hold(label="c"):
    '''Like a training: it can be stopped, and leaves a checkpoint.'''
    with Stop() as stop:
        note(label)
        print("begun", flush=False)
        while not os.path.exists("go"):
            if stop.signal:
                pathlib.Path("checkpoint").write_text(str(stop.signal))
                raise SystemExit(128 + stop.signal)
            time.sleep(0.01)
        print("finished")

def stubborn():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("stubborn")
    time.sleep(600)

def mistake():
    raise UserError("the file is missing")

def bug():
    raise ZeroDivisionError("a bug")

def leave(status):
    sys.exit(status)

def killed():
    note("killed")
    os.kill(os.getpid(), 9)

def prepare(name):
    if os.path.exists({{folder!r}} + "/broken"):
        raise ImportError("no module named torch")

all_jobs = (say, hold, stubborn, mistake, bug, leave, killed)
jobs.JOBS = {{{{job.__name__: job for job in all_jobs}}}}
jobs.prepare = prepare
sys.exit(warm_server.main(sys.argv[1:]))
"""

CLIENT = f"""
import atexit, json, os, signal, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from casesim.processes import jobs, warm
from casesim.files import logged

def late():
    '''Like a signal that comes when Python has taken back its handlers.'''
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)

if "LATE_SIGNAL" in os.environ:
    atexit.register(late)
log, command, name, values = sys.argv[1:]
if not command:
    jobs.JOBS = {{"here": lambda **values: print("here", values)}}
with logged(log):
    warm.run(name, json.loads(values), json.loads(command or "[]") or warm.COMMAND)
"""


class Host(hosts.Host):
    """One with jobs that need the warm process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = folder / "server.py"
        self.server.write_text(SERVER.format(folder=str(folder)))
        (folder / "job.py").write_text(CLIENT)
        self.command = json.dumps([sys.executable, str(self.server)])

    def arguments(self, log: str, name: str, **values: Any) -> list[str]:
        job = str(self.folder / "job.py")
        return [sys.executable, job, log, self.command, name, json.dumps(values)]

    def start(
        self, name: str, log: str = "log", own_group: bool = False, **values: Any
    ) -> subprocess.Popen[bytes]:
        command = self.arguments(log, name, **values)
        return self.begin(command, start_new_session=own_group)

    def run(self, name: str, log: str = "log", **values: Any) -> tuple[int, str]:
        """The exit status of a job, and its log."""
        status = self.start(name, log, **values).wait(SECONDS)
        return status, self.log(log)

    def log(self, name: str = "log") -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def notes(self, name: str) -> list[tuple[int, int]]:
        """The processes of jobs of that name, each with its parent."""
        file = self.folder / "notes.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(a, b) for said, a, b in map(json.loads, lines) if said == name]

    def begun(self, name: str = "c", number: int = 1) -> tuple[int, int]:
        """Wait for a job to begin."""
        return wait_until(lambda: self.notes(name)[number - 1 :])[0]


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


def test_idle_warm_process_ends_and_leaves_nothing(host: Host) -> None:
    host.environment["CASESIM_RESIDENT_IDLE_SECONDS"] = "0.1"
    job = host.start("hold")
    _, parent = host.begun()
    time.sleep(1.5 * background_server.SECONDS_BETWEEN_LOOKS)
    assert is_alive(parent), "a job is under way"
    (host.folder / "go").touch()
    assert job.wait(SECONDS) == 0
    wait_until(lambda: not is_alive(parent), 10)
    assert not list(host.sockets.iterdir())


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
    connection = background.dial(str(path))
    assert connection is not None
    result = background.exchange(connection, content)
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
        "from casesim.processes import jobs\n"
        "for name in jobs.JOBS: jobs.prepare(name)\n"
        "print(before, len(os.listdir('/proc/self/task')) - numexprs)"
    )
    environment = os.environ | warm._environment() | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after == before


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of before come back: a `Stop` that was told to stop stays."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_signals_that_come_together_count_as_one() -> None:
    got: list[int] = []
    with stopping.Stop(got.append) as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.signal == signal.SIGTERM
    signal.raise_signal(signal.SIGINT)
    assert got == [signal.SIGTERM]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("line", range(1, 6))
def test_signal_in_the_middle_of_another(line: int) -> None:
    got: list[int] = []
    interrupted: list[int] = []
    lines = 0

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        """Raise the second signal before the given line of the first's handler."""
        nonlocal lines
        if frame.f_code is not stopping.Stop._remember.__code__:
            return None
        if event == "line":
            lines += 1
            if lines == line:
                interrupted.append(frame.f_lineno)
                signal.raise_signal(signal.SIGINT)
        return interrupt

    with stopping.Stop(got.append) as stop:
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pytest.fail(f"acted as usual, in line {interrupted}")
        finally:
            sys.settrace(before)
        assert stop.signal == signal.SIGINT
    assert len(interrupted) == 1
    assert set(got) == {signal.SIGINT}


def test_without_a_signal_all_is_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with stopping.Stop():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("inside", [True, False])
def test_later_signal_acts_as_usual(
    monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.setattr(stopping, "_SECONDS_OF_ONE_SIGNAL", -1.0)
    with stopping.Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        if inside:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    if not inside:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# A real training


@pytest.fixture(scope="module")
def real() -> Iterator[Host]:
    with hosts.short_folder() as folder, closing(Host(folder)) as host:
        host.command = json.dumps(warm.COMMAND)
        yield host


def training(cohort: TinyCohort, model: str, **changes: Any) -> dict[str, Any]:
    values = {
        "cases": [str(stem) for stem in cohort.stems],
        "plans": str(cohort.plans),
        "dataset": str(cohort.dataset),
        "model": model,
        "training": {
            "configuration": "2d",
            "schedule": {"epochs": 2, "iterations_per_epoch": 3, "initial_lr": 0.01},
            "seed": 0,
            "storage": "float32",
        },
        "settings": {"checkpoint_minutes": 0, "validate_every": 2},
        "threads": 2,
        "gpu": 0,
        "memory_mb": 2000,
    }
    return values | changes


CHECKPOINT = Path("fold_all", "checkpoint_final.pth")
LATEST = Path("fold_all", "checkpoint_latest.pth")


def test_training_is_the_same_bit_for_bit(real: Host, tiny_cohort: TinyCohort) -> None:
    environment = real.environment
    for model, resident in (("warm", "1"), ("here", "0")):
        real.environment = environment | {"CASESIM_RESIDENT": resident}
        values = training(tiny_cohort, model)
        assert real.run("train", f"{model}.log", **values)[0] == 0
    real.environment = environment
    first, second = (real.folder / name / CHECKPOINT for name in ("warm", "here"))
    assert first.read_bytes() == second.read_bytes()
    losses = [
        re.findall(r"loss ([\d.]+)|pseudo-Dice .*? ([\d. ]+)$", real.log(name), re.M)
        for name in ("warm.log", "here.log")
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    assert "2 threads" in real.log("warm.log")


def long(cohort: TinyCohort, model: str) -> dict[str, Any]:
    values = training(cohort, model)
    values["training"]["schedule"] |= {"epochs": 2, "iterations_per_epoch": 10}
    values["settings"]["validate_every"] = 0
    return values


@pytest.mark.parametrize("how", ["told", "warm process killed"])
def test_training_goes_on_where_it_was(
    real: Host, tiny_cohort: TinyCohort, how: str
) -> None:
    values = long(tiny_cohort, f"model {how}")
    latest = real.folder / values["model"] / LATEST
    job = real.start("train", f"{how}.log", **values)
    wait_until(latest.exists)
    if how == "told":
        job.terminate()
        assert job.wait(SECONDS) == 128 + signal.SIGTERM
        assert "stopped by signal 15" in real.log(f"{how}.log")
    else:
        for pid in real.servers():
            os.kill(pid, signal.SIGKILL)
        assert job.wait(SECONDS) == 1
        assert "ended in the middle" in real.log(f"{how}.log")
    assert latest.exists()
    status, log = real.run("train", f"{how}.log", **values)
    assert status == 0
    assert "going on from iteration" in log


def test_training_that_cannot_begin_says_why(
    real: Host, tiny_cohort: TinyCohort
) -> None:
    values = training(tiny_cohort, "none", cases=["/nowhere/case"])
    status, log = real.run("train", "none.log", **values)
    assert status == 1
    assert log.startswith("Error: ")
    assert "/nowhere/case" in log
    assert "Traceback" not in log


def test_preprocessing_is_the_same(real: Host, tiny_cohort: TinyCohort) -> None:
    case = "case_1"
    values = {
        "images": [str(path) for path in tiny_cohort.images(case)],
        "label": str(tiny_cohort.label(case)),
        "plans": str(tiny_cohort.plans),
        "dataset": str(tiny_cohort.dataset),
        "configuration": "2d",
        "stem": f"preprocessed/{case}",
    }
    assert real.run("preprocess_case", "p.log", **values) == (0, "")
    for suffix in (".b2nd", "_seg.b2nd"):
        written = real.folder / f"preprocessed/{case}{suffix}"
        expected = Path(f"{tiny_cohort.stem(case)}{suffix}")
        assert written.read_bytes() == expected.read_bytes()


def test_copies_are_the_same(real: Host, tiny_cohort: TinyCohort) -> None:
    values: dict[str, Any] = {
        "images": [str(path) for path in tiny_cohort.images("case_1")],
        "label": str(tiny_cohort.label("case_1")),
        "plans": str(tiny_cohort.plans),
        "dataset": str(tiny_cohort.dataset),
        "configuration": "2d",
        "augmentation": {
            "mirror_axes": [0, 1, 2],
            "elastic_alpha": [0, 100],
            "elastic_sigma": [9, 13],
            "scale": [1.0, 1.0],
        },
        "case": "case_1",
        "seed": 0,
    }
    stems = [["a/copy_0", "a/copy_1"], ["b/copy_0", "b/copy_1"]]
    assert real.run("augment_case", "a.log", **values, stems=stems[0]) == (0, "")
    jobs.augment_case(**values, stems=[str(real.folder / stem) for stem in stems[1]])
    for first, second in zip(*stems, strict=True):
        written = [real.folder / f"{stem}.b2nd" for stem in (first, second)]
        assert written[0].read_bytes() == written[1].read_bytes()
    copies = [(real.folder / f"{stem}.b2nd").read_bytes() for stem in stems[0]]
    assert copies[0] != copies[1]
