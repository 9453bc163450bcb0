"""What the system tells about processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unit.processes.hosts import wait_until

from casesim import process_table
from casesim.process_table import process_information


def test_process_information() -> None:
    information = process_information(os.getpid())
    assert information is not None
    assert information[0] == os.getppid()
    assert information[2][0] == sys.orig_argv[0]
    assert process_information(os.getpid()) == information


def test_process_that_nobody_has_buried_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_until(lambda: process_information(child.pid) is None)
        # The file shows that it is not simply gone.
        assert Path(f"/proc/{child.pid}").exists() or sys.platform != "linux"


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps here")
def test_process_information_by_ps_agrees() -> None:
    by_ps = process_table._process_information_by_ps(os.getpid())
    assert by_ps is not None
    assert by_ps[0] == os.getppid()
    assert by_ps[2][0] == sys.orig_argv[0]
    assert process_table._process_information_by_ps(2**22 + 1) is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("snakemake --cores 2", True),
        ("/env/bin/python3.11 /env/bin/snakemake -n", True),
        ("python -m snakemake --target-jobs x", True),
        ("python -I -m snakemake", True),
        ("python snakemake.py", True),
        ("bash -c snakemake", False),
        ("srun python -m snakemake", False),
        ("/home/u/snakemake/bin/python predict.py", False),
        ("python /home/u/snakemake/predict.py", False),
        ("python x.py a b snakemake", False),
        ("", False),
    ],
)
def test_command_lines_of_snakemake(command: str, expected: bool) -> None:
    assert process_table.is_snakemake(command.split()) is expected
