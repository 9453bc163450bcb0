"""How a job that needs nnU-Net is spared importing it.

Importing torch and nnU-Net's trainer takes seconds: half of a short fine-tune, nearly
all of the preprocessing of a case. So such a job, when it may leave a process beside
it, hands its plain values to the *warm process* of its run (see `warm_server`), which
has imported all that and computed nothing, and which forks a child for each job. The
child is the job in every respect: it writes to the job's log, takes a device and sets
its threads as the job would, and its result is the same bit for bit. This process waits
for it, passes signals on and ends with its status. (Snakemake's `benchmark:` therefore
measures the time of such a job, but not its memory.)

Forking is what makes this cheap, and it is safe only because the warm process has a
single thread and no GPU. Where the system's own libraries cannot be forked (macOS),
and with `inference.resident: false`, the job does its work itself.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from casesim.errors import UserError
from casesim.processes import jobs, service, stall, waiting
from casesim.processes.service import Service
from casesim.processes.stopping import Stop

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "casesim.processes.warm_server")

# Of this job, not of the one that started the warm process.
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "TMPDIR")

_LOOK_SECONDS = min(300.0, stall.SECONDS / 4)

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(name: str, values: Mapping[str, Any], command: Sequence[str] = COMMAND) -> None:
    """Do a job (see `jobs` for its name), in the warm process where possible.

    `values` are text, numbers, lists and dictionaries. `command` starts the warm
    process. Returns when the job has succeeded. When it has failed, raises SystemExit
    with its status (its messages are in the log by then); `UserError` when it was
    killed, or the warm process was. SIGTERM and SIGINT are passed on, and blocked when
    the job has ended by them: this process is about to end, too.
    """
    text = json.dumps(values)
    if os.environ.get("CASESIM_RESIDENT") == "0" or sys.platform != "linux":
        stall.watch()
        try:
            jobs.find(name)(**json.loads(text))
        finally:
            stall.rest()
        return
    warm_process = Service("warm process", "warm", command, environment=_environment())
    variables = {key: os.environ.get(key) for key in PASSED_ON}
    connection = warm_process.connect()
    sys.stdout.flush()
    sys.stderr.flush()

    def pass_on(number: int) -> None:
        # The other side may have ended, which is about to show.
        with suppress(OSError):
            connection.send(bytes([number]))

    with Stop(pass_on) as stop:
        # A signal has to wait for the request, which it would end up in the middle of.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            service.send(
                connection,
                [name, warm_process.key, str(Path.cwd()), json.dumps(variables), text],
                files=(1, 2),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        silence = _Silence(service.peer(connection))
        answer = service.receive(connection, silence, _LOOK_SECONDS, _LOOK_SECONDS)
        if stop.signal:
            # The end of Python's handlers comes before that of the process, which the
            # same signal from another sender would then give another status.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if answer is None:
        if stop.signal:
            sys.exit(128 + stop.signal)
        raise warm_process.death()
    succeeded, text = answer
    if not succeeded:
        print(text, file=sys.stderr)
        sys.exit(1)
    _end_like(int(text), stop.signal)


class _Silence:
    """Notices that a job logs nothing, says so, and gives up when it must be frozen.

    A job that stands still ends by itself (`stall`): one that has not, and says
    nothing, cannot.
    """

    def __init__(self, warm_process: int | None) -> None:
        self._warm_process = warm_process
        self._size = self._logged()
        self._since = time.monotonic()

    def __call__(self, _: float) -> None:
        if self._logged() != self._size:
            self._since = time.monotonic()
        elif (silent := time.monotonic() - self._since) > stall.SECONDS + _LOOK_SECONDS:
            raise UserError(
                f"Nothing was logged for {silent:.0f} s, and the process of this job "
                "does not end by itself: it is given up."
            )
        else:
            whom = waiting.describe(self._warm_process or 0)
            print(
                f"Nothing was logged for {silent:.0f} s; waiting for the job ({whom}).",
                file=sys.stderr,
                flush=True,
            )
        self._size = self._logged()

    def _logged(self) -> int:
        return os.fstat(1).st_size


def _environment() -> dict[str, str]:
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # Threads that a library starts when it is imported would be lost in the child.
        "OPENBLAS_NUM_THREADS": "1",
        # To be asked whether there is a GPU, CUDA must be started; the driver need not.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }


def _end_like(status: int, stopped: int) -> None:
    """End as the child did: its exit status, or the negative number of a signal."""
    if status == 0:
        return
    if status > 0:
        sys.exit(status)
    if -status == stopped:
        sys.exit(128 + stopped)
    raise UserError(
        f"The process of this job was killed by {signal.Signals(-status).name}. If "
        "nobody did that, the machine's memory ran out, or the job's: give the rule "
        "more mem_mb, or run fewer jobs at once. After SIGBUS, make room on the disk."
    )
