"""A file is whole or absent; a script's log holds all that it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casesim.files import atomic_path

ROOT = Path(__file__).parents[2]


def test_the_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "new" / "map.nii.gz"
    with atomic_path(target) as path:
        assert path.name.endswith(".nii.gz")
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "table.tsv"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as path:
            path.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_gets_the_modes_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a.txt") as path:
            path.write_text("")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("raised", "wanted", "unwanted"),
    [
        ("UserError('the file is cut short')", "Error: the file is cut short", "Trace"),
        ("ValueError('a defect')", "Traceback", "\nError: a defect"),
    ],
)
def test_a_script_ends_with_its_message_in_the_log(
    tmp_path: Path, raised: str, wanted: str, unwanted: str
) -> None:
    log = tmp_path / "logs" / "script.log"
    code = (
        "import os\n"
        "from casesim.errors import UserError\n"
        "from casesim.files import logged\n"
        f"with logged({str(log)!r}):\n"
        "    os.system('echo from a child')\n"
        f"    raise {raised}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout + result.stderr == ""
    assert "from a child" in log.read_text()
    assert wanted in log.read_text()
    assert unwanted not in log.read_text()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_messages_survive_a_locale_that_cannot_show_them(
    tmp_path: Path, encoding: str
) -> None:
    code = (
        "import sys; from casesim.files import logged\n"
        "with logged(sys.argv[1]):\n    print('in the log: \u2026')\n"
        "print('at the terminal: \u2026', file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        env={
            **os.environ,
            "PYTHONIOENCODING": encoding,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == "at the terminal: \\u2026\n"
    assert (tmp_path / "log").read_text() == "in the log: \\u2026\n"
