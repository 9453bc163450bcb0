"""What all tests share: signals and sockets of their own, one finished run."""

import fcntl
import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from unit.processes.hosts import short_folder

from workflow.conftest import SMALL, Checkout, succeeded

# What takes long and is shared by tests of several files, the longest first.
SHARED = ("cluster", "finished")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers test, those of one costly fixture go to the same one.

    Other tests go by file. What takes longest begins first, so that the workers end
    together.
    """

    def group(item: pytest.Item) -> str:
        used = getattr(item, "fixturenames", ())
        return next((name for name in SHARED if name in used), str(item.path))

    def rank(item: pytest.Item) -> int:
        name = group(item)
        if name in SHARED:
            return SHARED.index(name)
        return len(SHARED) + ("unit" in item.path.parts)

    items.sort(key=rank)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


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
            checkout.path("said.txt").write_text(succeeded(checkout.run()))
            done.touch()
    return checkout
