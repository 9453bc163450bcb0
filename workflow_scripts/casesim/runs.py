"""Which Snakemake works in this folder, and what a killed one has left behind."""

import json
import os
import shutil
import socket
from pathlib import Path

from casesim.files import atomic_path
from casesim.process_table import process_information

RECORD = Path(".snakemake/casesim_run.json")
LOCKS = Path(".snakemake/locks")


def record_run(folder: Path = Path()) -> None:
    """Note that this process runs the workflow in `folder`."""
    pid = os.getpid()
    information = process_information(pid)
    started = information[1] if information else ""
    record = {"host": socket.gethostname(), "pid": pid, "started": started}
    with atomic_path(folder / RECORD) as path:
        path.write_text(json.dumps(record))


def remove_stale_locks(folder: Path = Path()) -> bool:
    """Remove Snakemake's locks when the process that set them is gone.

    Snakemake leaves them behind when it is killed or the power fails, and then refuses
    to start until it is told `--unlock`. They are kept when that process may still be
    alive: on another host, or where no run was recorded.

    Returns:
        Whether locks were removed.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return False
    if record["host"] != socket.gethostname() or not any((folder / LOCKS).glob("*")):
        return False
    information = process_information(record["pid"])
    if information and information[1] == record["started"]:
        return False
    shutil.rmtree(folder / LOCKS)
    return True
