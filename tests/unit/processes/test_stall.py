"""What stands still says where, and ends; what works is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casesim.processes import stall

SCRIPTS = Path(stall.__file__).parents[2]
PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from casesim.processes import stall
def work(rounds):
    for _ in range(rounds):
        time.sleep(0.1)
        stall.progress()
def stand_still():
    time.sleep(60)
"""


def run(text: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + text],
        env=os.environ | {"CASESIM_STALL_SECONDS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "text", ["stall.watch(); work(20)", "stall.watch(); stall.rest(); time.sleep(1.5)"]
)
def test_what_works_or_is_not_watched_goes_on(text: str) -> None:
    assert run(text) == (0, "")


def test_what_stands_still_says_where() -> None:
    status, said = run("stall.watch(); work(5); stand_still()")
    assert status == 1
    assert "Timeout" in said
    assert "in stand_still" in said


def test_without_a_watch_progress_is_nothing() -> None:
    stall.rest()
    stall.progress()
    assert stall._set_at is None
