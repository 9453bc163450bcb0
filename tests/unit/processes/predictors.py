"""A host with clients of a predictor that computes nothing."""

import subprocess
import sys
from pathlib import Path

from casesim.processes import resident

from . import hosts
from .hosts import SECONDS, wait_until

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
    from casesim.inference import serving
    from casesim.processes import resident_server
    serving.make_predictor = Fake
    resident_server.devices.torch_device = lambda gpu: "cpu"
sys.exit(resident.main(__file__, sys.argv[1:], "casesim.inference.serving"))
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


def hold_one_and_have_one_wait(
    host: Host,
) -> tuple["subprocess.Popen[str]", "subprocess.Popen[str]"]:
    """A cell of `c1` on the only device until `go` is there, and one of `c2` behind."""
    host.pretend_to_have_a_gpu()
    first = host.start("hold", "c1")
    wait_until(lambda: host.said("run c1"))
    second = host.start("m", "c2")
    wait_until(lambda: host.said("prefetch c2"))
    return first, second
