"""What all tests share: signals and sockets of their own, one finished run."""

import fcntl
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from unit.processes.hosts import short_folder

from workflow.conftest import SMALL, Checkout, succeeded

TESTS = Path(__file__).parent


def share(file: str) -> str:
    """What the tests of a file have in common with those of others, else the file.

    A SLURM cluster has its ports, and Snakemake locks the folder that it works in.
    """
    path = TESTS.parent / file
    if path.parent == TESTS / "slurm":
        return "slurm"
    return "finished" if needs_finished(path) else file


@cache
def needs_finished(path: Path) -> bool:
    return "finished: Checkout" in path.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that several workers end together."""
    order = ("slurm", "finished")

    def rank(item: pytest.Item) -> tuple[int, bool]:
        shared = share(str(item.path))
        place = (
            order.index(shared) if shared in order else 2 + ("unit" in item.path.parts)
        )
        # Those without the finished run come while another worker makes that.
        return place, needs_finished(item.path)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something go to one worker.

    By hand: with pytest 9.2, the groups of pytest-xdist 3.8 have no effect.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid.split("::")[0])

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: the worker that has the cluster mostly waits."""
    return (os.cpu_count() or 1) + 1


def _survive(number: int, frame: FrameType | None) -> None:
    """Like `SIG_IGN`, but what is started from here does not inherit it."""


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Who starts the tests with `nohup` or in the background of a script ignores SIGHUP
    and SIGINT, and so would all that the tests start."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: _survive}
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is signal.SIG_IGN
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def own_sockets() -> Iterator[None]:
    """No process beside the jobs is shared with another run of the same user."""
    with short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def modules_are_compiled_once() -> Iterator[None]:
    """Not by each of the many processes that tests start, in folders of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The whole workflow on the smallest cohort, run once: by the worker that is first.

    What it printed is in `said.txt`.
    Tests may run Snakemake in it if they are of the same group, see above; others only
    read.
    """
    config = {**SMALL, "evidence": {"cleanlab_folds": 2}}
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    done = folder / "finished.done"
    with (folder / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        checkout = Checkout(folder / "finished", config, is_there=done.exists())
        if not done.exists():
            checkout.path("said.txt").write_text(
                succeeded(checkout.run("--cores", "2"))
            )
            done.touch()
    return checkout
