"""Tests do not depend on who starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from casesim.processes import locks

IGNORED = (signal.SIGINT, signal.SIGHUP)


def ignore() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def test_what_a_test_starts_ignores_no_signal() -> None:
    script = "import signal; print(signal.getsignal(2) is signal.default_int_handler)"
    script += "; print(signal.getsignal(1) is signal.SIG_DFL)"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", "True"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_sockets_lie_in_a_folder_of_this_session() -> None:
    folder = Path(locks.private_folder())
    assert folder.parent == Path(os.environ["XDG_RUNTIME_DIR"])
    assert folder.parent.name.startswith("cs-")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_started_in_the_background() -> None:
    inner = [
        f"{__file__}::{test.__name__}"
        for test in (
            test_what_a_test_starts_ignores_no_signal,
            test_sockets_lie_in_a_folder_of_this_session,
        )
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *inner],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=ignore,
    )
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout
