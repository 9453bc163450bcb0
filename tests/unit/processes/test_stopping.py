"""Signals that stop a training, alone and one upon the other."""

import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from casesim.processes import stopping


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
