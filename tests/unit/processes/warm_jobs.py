"""A host with jobs that take no time, done by the warm process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from casesim.processes import warm

from . import hosts
from .hosts import SECONDS, wait_until

SCRIPTS = Path(warm.__file__).parents[2]

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
known = {{{{job.__name__: job for job in all_jobs}}}}
jobs.is_known = known.__contains__
jobs.find = known.__getitem__
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
    jobs.find = {{"here": lambda **values: print("here", values)}}.__getitem__
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
