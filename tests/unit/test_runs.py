"""Locks of a killed Snakemake are removed, those of a living one are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from casesim.runs import LOCKS, RECORD, record_run, remove_stale_locks


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    (tmp_path / LOCKS).mkdir(parents=True)
    (tmp_path / LOCKS / "0.output.lock").write_text("results/a.tsv")
    return tmp_path


def test_locks_of_a_living_process_are_kept(locked: Path) -> None:
    record_run(locked)
    assert not remove_stale_locks(locked)
    assert (locked / LOCKS / "0.output.lock").exists()


def test_locks_of_a_process_that_has_ended_are_removed(locked: Path) -> None:
    code = "from pathlib import Path; from casesim.runs import record_run\n"
    code += f"record_run(Path({str(locked)!r}))"
    package = str(Path(__file__).parents[2] / "workflow_scripts")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=package)
    assert remove_stale_locks(locked)
    assert not (locked / LOCKS).exists()
    assert not remove_stale_locks(locked)


def test_another_process_with_the_same_number_is_not_mistaken(locked: Path) -> None:
    record_run(locked)
    record = json.loads((locked / RECORD).read_text())
    (locked / RECORD).write_text(json.dumps({**record, "started": "before"}))
    assert remove_stale_locks(locked)


def test_locks_of_another_host_are_kept(locked: Path) -> None:
    record_run(locked)
    record = json.loads((locked / RECORD).read_text())
    record |= {"host": "elsewhere", "started": "before"}
    (locked / RECORD).write_text(json.dumps(record))
    assert not remove_stale_locks(locked)


def test_without_a_record_locks_are_kept(locked: Path) -> None:
    assert not remove_stale_locks(locked)
