"""What all tests share: signals and sockets of their own, one finished run."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from unit.processes.hosts import short_folder

from workflow.conftest import SMALL, Checkout, succeeded


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
    """The whole workflow on the smallest cohort, run once."""
    config = {**SMALL, "evidence": {"cleanlab_folds": 2}}
    checkout = Checkout(tmp_path_factory.mktemp("finished"), config)
    succeeded(checkout.run())
    return checkout
