"""The resident predictor and its client: what can go wrong between two processes.

Most tests replace what computes by something that takes no time; the last ones segment
with a small real network.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.processes.hosts import SECONDS, is_alive, wait_until

from casesim.errors import UserError
from casesim.processes import (
    background,
    background_server,
    devices,
    resident,
    resident_server,
)

from . import hosts

SCRIPTS = Path(resident.__file__).parents[2]

# What the fake predictor does is said by the model's name; "hold" waits for a file.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from casesim.processes import resident
from casesim.errors import UserError

class Fake:
    def __init__(self, device):
        import json, os, pathlib, time
        self.json, self.os, self.time = json, os, time
        self.note = pathlib.Path({{folder!r}}, "notes.txt")
        self.say("start")
        if os.path.exists({{folder!r}} + "/broken"):
            raise ImportError("no module named torch")

    def say(self, text):
        with self.note.open("a") as file:
            file.write(f"{{{{self.os.getpid()}}}} {{{{text}}}}\\n")

    def prefetch(self, job):
        self.say(f"prefetch {{{{job.case}}}}")

    def release(self):
        self.say("release")

    def run(self, job):
        self.say(f"run {{{{job.case}}}}")
        if job.model == "hold":
            while not job.checkpoint.exists():
                self.time.sleep(0.01)
        elif job.model == "missing":
            raise UserError(f"{{{{job.checkpoint}}}} is missing.")
        elif job.model == "bug":
            raise ZeroDivisionError("a bug")
        elif job.model == "cuda":
            raise RuntimeError("CUDA error: an illegal memory access")
        elif job.model == "crash":
            print("the last words", flush=True)
            self.os.kill(self.os.getpid(), 9)
        job.score.write_text(self.json.dumps(self.os.getpid()))
        return f"done {{{{job.case}}}}"

if "--serve" in sys.argv:
    from casesim.processes import resident_server
    resident_server.make_predictor = Fake
    resident_server.devices.torch_device = lambda gpu: "cpu"
sys.exit(resident.main(__file__, sys.argv[1:]))
"""


class Host(hosts.Host):
    """One with clients of a predictor that computes nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment["OMP_NUM_THREADS"] = "1"
        self.program = folder / "predict.py"
        self.program.write_text(PROGRAM.format(folder=str(folder)))
        self.gpu = "0"

    def pretend_to_have_a_gpu(self) -> None:
        """One device, for which clients queue; on the CPU each gets a place."""
        self.gpu = "1"
        self.environment["CUDA_VISIBLE_DEVICES"] = "0"

    def command(self, model: str = "m", case: str = "c", *more: str) -> list[str]:
        return [
            *(sys.executable, "-S", "-E", str(self.program)),
            *("--model", model, "--case", case, "--checkpoint", "go"),
            *("--data", f"{case}.b2nd", "--label", f"{case}.nii.gz"),
            *("--prediction", f"{case}.out.nii.gz", "--score", f"{case}.json"),
            *("--threads", "1", "--gpu", self.gpu),
            *("--labels", "a=1", "--regions", "A=1"),
            *more,
        ]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return self.begin(
            self.command(*arguments),
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        client = self.start(*arguments, **environment)
        # Comes back only when no other process holds the pipes.
        out, err = client.communicate(timeout=SECONDS)
        return client.returncode, out, err

    def served_by(self, case: str = "c") -> int:
        return int((self.folder / f"{case}.json").read_text())

    def notes(self) -> list[str]:
        file = self.folder / "notes.txt"
        return file.read_text().splitlines() if file.exists() else []

    def said(self, text: str) -> list[int]:
        """The processes whose notes include this text."""
        notes = [note.split(" ", 1) for note in self.notes()]
        return [int(pid) for pid, note in notes if note == text]

    def servers(self) -> set[int]:
        return super().servers() | {int(note.split()[0]) for note in self.notes()}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with hosts.short_folder() as folder, closing(Host(folder)) as host:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield host


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
    expected = background.KEEP_FREED_MEMORY | {"MALLOC_TRIM_THRESHOLD_": "131072"}
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
    host.pretend_to_have_a_gpu()
    first = host.start("hold", "c1")
    wait_until(lambda: host.said("run c1"))
    second = host.start("m", "c2")
    wait_until(lambda: host.said("prefetch c2"))
    assert not host.said("run c2")
    (host.folder / "go").touch()
    assert first.wait(SECONDS) == second.wait(SECONDS) == 0


def test_client_killed_while_waiting_is_passed_over(host: Host) -> None:
    host.pretend_to_have_a_gpu()
    first = host.start("hold", "c1")
    wait_until(lambda: host.said("run c1"))
    second = host.start("m", "c2")
    wait_until(lambda: host.said("prefetch c2"))
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
        resident.release_memory(slot)
    assert host.said("release") == [host.served_by()]
    assert host.run("m", "c2")[0] == 0


def test_training_waits_for_a_request_whose_client_was_killed(host: Host) -> None:
    client = host.start("hold", "c")
    wait_until(lambda: host.said("run c"))
    client.kill()
    client.wait()
    with devices.reserve(0) as slot:
        released = threading.Thread(target=resident.release_memory, args=[slot])
        released.start()
        released.join(0.3)
        assert released.is_alive()
        (host.folder / "go").touch()
        released.join(SECONDS)
    assert [note.split(" ", 1)[1] for note in host.notes()][-2:] == ["run c", "release"]


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
            time.sleep(1.5 * background_server.SECONDS_BETWEEN_LOOKS)
        assert is_alive(pid)
        owner.send_signal(number)
        # Nobody has taken notice of the owner's end: it is a zombie all the time.
        wait_until(lambda: not is_alive(pid), 10)
        assert not list(host.sockets.glob("*.sock"))


def test_owner_is_the_parent_where_there_is_no_snakemake() -> None:
    pid, started = background.find_owner()
    assert int(pid) == os.getppid()
    information = background.process_information(os.getppid())
    assert information is not None
    assert started == information[1]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("snakemake --cores 2", True),
        ("/env/bin/python3.11 /env/bin/snakemake -n", True),
        ("python -m snakemake --target-jobs x", True),
        ("python -I -m snakemake", True),
        ("python snakemake.py", True),
        ("bash -c snakemake", False),
        ("srun python -m snakemake", False),
        ("/home/u/snakemake/bin/python predict.py", False),
        ("python /home/u/snakemake/predict.py", False),
        ("python x.py a b snakemake", False),
        ("", False),
    ],
)
def test_command_lines_of_snakemake(command: str, expected: bool) -> None:
    assert background._is_snakemake(command.split()) is expected


def test_process_information() -> None:
    information = background.process_information(os.getpid())
    assert information is not None
    assert information[0] == os.getppid()
    assert information[2][0] == sys.orig_argv[0]
    assert background.process_information(os.getpid()) == information


def test_process_that_nobody_has_buried_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_until(lambda: background.process_information(child.pid) is None)
        # The file shows that it is not simply gone.
        assert Path(f"/proc/{child.pid}").exists() or sys.platform != "linux"


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps here")
def test_process_information_by_ps_agrees() -> None:
    by_ps = background._process_information_by_ps(os.getpid())
    assert by_ps is not None
    assert by_ps[0] == os.getppid()
    assert by_ps[2][0] == sys.orig_argv[0]
    assert background._process_information_by_ps(2**22 + 1) is None


def test_logs_of_dead_servers_are_removed_after_a_while(host: Host) -> None:
    host.run("m", "c1")
    pid = host.served_by("c1")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    left = {file.stem for file in host.sockets.glob("*.lock")}
    assert len(left) == 1
    background_server.remove_what_dead_servers_left(host.sockets)
    assert {file.stem for file in host.sockets.glob("*.log")} == left
    for file in host.sockets.glob("*.lock"):
        os.utime(file, (0, 0))

    def is_clean() -> bool:
        background_server.remove_what_dead_servers_left(host.sockets)
        return [file.name for file in host.sockets.iterdir()] == ["cpu0.device"]

    # A dead process's last thread can hold its lock for a moment longer.
    wait_until(is_clean)


def test_logs_of_living_servers_are_kept(host: Host) -> None:
    host.run()
    for file in host.sockets.glob("*.lock"):
        os.utime(file, (0, 0))
    background_server.remove_what_dead_servers_left(host.sockets)
    assert len(list(host.sockets.glob("*.log"))) == 1


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


def test_job_of_the_workflows_command_line() -> None:
    job = resident_server.parse_job(
        "/work place",
        [
            *("--model", "finetuned/a", "--case", "b", "--checkpoint", "m/c.pth"),
            *("--data", "b.b2nd", "--label", "/l/b.nii.gz"),
            *("--prediction", "p/b.nii.gz", "--score", "s/b.json"),
            *("--threads", "8", "--gpu", "1", "--no-mirroring", "--resident"),
            *("--tile-step", "0.25", "--labels", "edema=1;non-enhancing_tumor=2"),
            *("--regions", "WT=1,2;x=y=2"),
        ],
    )
    assert job.checkpoint == Path("/work place/m/c.pth")
    assert job.label == Path("/l/b.nii.gz")
    assert job.threads == 8
    assert job.labels == {"edema": 1, "non-enhancing_tumor": 2}
    assert job.regions == {"WT": (1, 2), "x=y": (2,)}
    assert job.options == {"mirroring": False, "tile_step": 0.25, "bfloat16": False}


@pytest.mark.parametrize("text", ["1,2", "=1", "a=", "a=x"])
def test_malformed_regions(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        resident_server.parse_regions(text)


def test_available_memory_is_within_the_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < resident_server.available_memory() <= total


Strings = resident_server.Cache[str]


class TestCache:
    """Least recently used, by bytes, and never stale."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        files = [tmp_path / name for name in "abc"]
        for file in files:
            file.write_text(file.name)
        return files

    @pytest.fixture
    def cache(self) -> Iterator[Strings]:
        self.loads: list[str] = []

        def load(path: Path) -> tuple[str, int]:
            self.loads.append(path.name)
            text = path.read_text()
            if text == "bad":
                raise UserError("bad")
            return text, 10

        with ThreadPoolExecutor(1) as loader:
            yield resident_server.Cache(load, 25, loader)

    def test_loads_once(self, cache: Strings, files: list[Path]) -> None:
        for _ in range(3):
            assert cache.fetch(files[0]).result() == ("a", 10)
        assert self.loads == ["a"]

    def test_forgets_the_least_recently_used(
        self, cache: Strings, files: list[Path]
    ) -> None:
        for number in (0, 1, 0, 2):
            cache.fetch(files[number]).result()
            cache.trim()
        assert self.loads == ["a", "b", "c"]
        cache.fetch(files[0]).result()
        assert self.loads == ["a", "b", "c"]
        cache.fetch(files[1]).result()
        assert self.loads == ["a", "b", "c", "b"]

    def test_rewritten_file_is_loaded_anew(
        self, cache: Strings, files: list[Path]
    ) -> None:
        assert cache.fetch(files[0]).result()[0] == "a"
        files[0].write_text("new")
        assert cache.fetch(files[0]).result()[0] == "new"

    def test_rewritten_companion_is_loaded_anew(
        self, cache: Strings, files: list[Path]
    ) -> None:
        cache.fetch(files[0], also=(files[1],)).result()
        files[1].write_text("longer")
        cache.fetch(files[0], also=(files[1],)).result()
        assert self.loads == ["a", "a"]

    def test_failure_is_not_remembered(self, cache: Strings, files: list[Path]) -> None:
        before = files[0].stat()
        files[0].write_text("bad")
        with pytest.raises(UserError, match="bad"):
            cache.fetch(files[0]).result()
        cache.trim()
        assert cache.fetch(files[1]).result()[0] == "b"
        files[0].write_text("a")
        os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
        assert cache.fetch(files[0]).result()[0] == "a"

    def test_missing_file_is_named(self, cache: Strings, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nothing"):
            cache.fetch(tmp_path / "nothing")

    def test_clear(self, cache: Strings, files: list[Path]) -> None:
        cache.fetch(files[0]).result()
        cache.clear()
        cache.fetch(files[0]).result()
        assert self.loads == ["a", "a"]


PLANS = {
    "dataset_name": "Dataset001_Cohort",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "median_image_size_in_voxels": [16, 16],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": True,
            **{
                f"resampling_fn_{what}{kwargs}": value
                for what, is_seg in [
                    ("data", False),
                    ("seg", True),
                    ("probabilities", False),
                ]
                for kwargs, value in [
                    ("", "resample_data_or_seg_to_shape"),
                    (
                        "_kwargs",
                        {
                            "is_seg": is_seg,
                            "order": 1,
                            "order_z": 0,
                            "force_separate_z": None,
                        },
                    ),
                ]
            },
            "architecture": {
                "network_class_name": (
                    "dynamic_network_architectures.architectures.unet.PlainConvUNet"
                ),
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [8, 16],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3]] * 2,
                    "strides": [[1, 1], [2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
DATASET = {
    "channel_names": {"0": "T1w"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "file_ending": ".nii.gz",
}


class RealHost(Host):
    """Two untrained models, two preprocessed cases, and the workflow's own client."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import SimpleITK
        import torch
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from casesim.nnunet import checkpoints, preprocessing

        super().__init__(folder)
        # A copy, because an edit of the package in the meantime starts another server.
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SCRIPTS, folder / "scripts", ignore=ignored)
        self.program = folder / "scripts/inference/predict.py"
        torch.set_num_threads(1)
        for name in ("plans.json", "dataset.json"):
            content = PLANS if name == "plans.json" else DATASET
            (folder / name).write_text(json.dumps(content))
        manager = PlansManager(PLANS)
        for seed, model in enumerate(("one", "two")):
            torch.manual_seed(seed)
            network = checkpoints.build_network(
                manager, manager.get_configuration("2d"), DATASET, False, True
            )
            checkpoints.save_model(
                folder / model, network.state_dict(), PLANS, DATASET, "2d", (0, 1)
            )
        generator = np.random.default_rng(0)
        for case in ("a", "b"):
            image = generator.normal(size=(3, 20, 24)).astype(np.float32)
            files: list[Path] = []
            arrays: list[tuple[str, Any]] = [
                (f"{case}_0000.nii.gz", image),
                (f"{case}.nii.gz", (2 * (image > 1)).astype(np.uint8)),
            ]
            for name, array in arrays:
                files.append(folder / name)
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), files[-1])
            preprocessing.preprocess_case(
                [files[0]],
                files[1],
                folder / "plans.json",
                folder / "dataset.json",
                "2d",
                folder / case,
            )

    def command(self, model: str = "one", case: str = "a", *more: str) -> list[str]:
        return [
            *(sys.executable, "-S", "-E", str(self.program)),
            *("--model", model, "--case", case),
            *("--checkpoint", f"{model}/fold_all/checkpoint_final.pth"),
            *("--data", f"{case}.b2nd", "--label", f"{case}.nii.gz"),
            *("--prediction", f"{model}-{case}-out.nii.gz"),
            *("--score", f"{model}-{case}.json", "--threads", "1", "--gpu", self.gpu),
            *("--labels", "edema=1;core=2", "--regions", "WT=1,2", *more),
        ]

    def result(self, model: str, case: str) -> tuple[Any, dict[str, Any]]:
        """Label map and score, which are removed; the score without its seconds."""
        import SimpleITK

        prediction = self.folder / f"{model}-{case}-out.nii.gz"
        score = self.folder / f"{model}-{case}.json"
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(prediction))
        record = json.loads(score.read_text())
        del record["seconds"]
        prediction.unlink()
        score.unlink()
        return labels, record


@pytest.fixture(scope="module")
def real() -> Iterator[RealHost]:
    pytest.importorskip("nnunetv2")
    with hosts.short_folder() as folder:
        host = RealHost(folder)
        yield host
        pids = host.servers()
    # Its folder gone, the server has lost its socket.
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 15)
    host.close()


class TestRealNetwork:
    """The same with nnU-Net's network, in one server for all tests of this class."""

    def test_same_result_with_and_without_the_resident_predictor(
        self, real: RealHost
    ) -> None:
        status, out, err = real.run("two", "b", "--no-resident")
        assert (status, err) == (0, "")
        expected, expected_score = real.result("two", "b")
        assert expected.any()
        assert expected_score["labels"]["core"]["n_ref"] > 0
        for model, case in [("one", "a"), ("two", "b"), ("one", "b")]:
            status, out, err = real.run(model, case)
            assert (status, err) == (0, "")
            assert f"{model} on {case} (cpu): load" in out
            labels, score = real.result(model, case)
            same = (model, case) == ("two", "b")
            assert (score == expected_score) is same
            assert bool((labels == expected).all()) is same
        assert len(real.servers()) == 1

    def test_options_reach_the_network(self, real: RealHost) -> None:
        real.run("one", "a")
        with_mirroring, _ = real.result("one", "a")
        real.run("one", "a", "--no-mirroring")
        without, _ = real.result("one", "a")
        assert (with_mirroring != without).any()

    def test_damaged_checkpoint_fails_its_job_alone(self, real: RealHost) -> None:
        checkpoint = real.folder / "two/fold_all/checkpoint_final.pth"
        good = checkpoint.read_bytes()
        before = real.servers()
        checkpoint.write_bytes(good[: len(good) // 2])
        status, _, err = real.run("two", "a")
        assert status == 1
        assert err.startswith("Error: ")
        assert str(checkpoint) in err
        assert "Traceback" not in err
        assert real.run("one", "a")[0] == 0
        checkpoint.write_bytes(good)
        assert real.run("two", "a")[0] == 0
        assert real.servers() == before

    def test_retrained_model_is_loaded_anew(self, real: RealHost) -> None:
        real.run("one", "a")
        first, _ = real.result("one", "a")
        shutil.copytree(real.folder / "one", real.folder / "kept")
        shutil.copyfile(
            real.folder / "two/fold_all/checkpoint_final.pth",
            real.folder / "one/fold_all/checkpoint_final.pth",
        )
        real.run("one", "a")
        second, _ = real.result("one", "a")
        real.run("two", "a")
        assert (second == real.result("two", "a")[0]).all()
        assert (second != first).any()
        shutil.rmtree(real.folder / "one")
        (real.folder / "kept").rename(real.folder / "one")

    @pytest.mark.parametrize("name", ["a.b2nd", "a.pkl", "a.nii.gz", "one/plans.json"])
    @pytest.mark.parametrize("how", ["missing", "damaged"])
    def test_file_that_is_missing_or_damaged_is_named(
        self, real: RealHost, name: str, how: str
    ) -> None:
        file = real.folder / name
        content = file.read_bytes()
        file.unlink()
        if how == "damaged":
            file.write_bytes(b"no such format")
        before = real.servers()
        status, _, err = real.run("one", "a")
        file.write_bytes(content)
        assert status == 1
        assert err.startswith("Error: ")
        assert name in err
        assert "Traceback" not in err
        assert not list(real.folder.glob(".tmp-*"))
        assert real.run("one", "a")[0] == 0
        assert real.servers() == before
