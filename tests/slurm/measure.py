"""What the cluster's profile costs: planning, and each submission (docs/scale.md).

The jobs are stand-ins that only touch their outputs, so that all that is left is
Snakemake's and SLURM's. As root, with no other cluster of these tests running:

    PYTHONPATH=tests:workflow_scripts python -m slurm.measure plan 50 100
    PYTHONPATH=tests:workflow_scripts python -m slurm.measure submission 100
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.experiments import pretend_decathlon
from workflow.conftest import Checkout, succeeded
from workflow.test_batches import CLIENT, DATA, SCRIPT

from .cluster import Cluster, why_not
from .conftest import ClusterCheckout
from .test_groups import config, groups

REPEATS = 3


def stand_in(folder: Path, rows: int, columns: int) -> ClusterCheckout:
    checkout = ClusterCheckout(folder, config(columns, rows))
    pretend_decathlon(folder / DATA, columns)
    for script in checkout.scripts():
        script.write_text(CLIENT if script.name == "predict.py" else SCRIPT)
    return checkout


def plan(folder: Path, rows: int, columns: int) -> None:
    """Time and memory of a dry run of the matrix, with and without submissions."""
    checkout = stand_in(folder, rows, columns)
    for name, command in (
        ("local", Checkout.command(checkout, "matrix", "-n")),
        ("profile", checkout.command("matrix", "-n")),
    ):
        output = folder / f"{name}.txt"
        started = time.monotonic()
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        _, status, usage = os.wait4(pid, 0)
        assert status == 0, output.read_text()[-3000:]
        print(
            f"{rows} x {columns}, {name}: {time.monotonic() - started:.1f} s, "
            f"{usage.ru_utime + usage.ru_stime:.1f} s of CPU, "
            f"{usage.ru_maxrss / 1024:.0f} MB, "
            f"{len(groups(output.read_text()))} submissions with cells",
            flush=True,
        )


def submission(folder: Path, cells: int) -> None:
    """Run time of a submission of one cell and of many, as SLURM records it."""
    checkout = stand_in(folder, 4, cells)
    target = "results/models/finetuned/BRATS_001/plans.json"
    succeeded(checkout.run_locally(target))
    row = checkout.path("results/scores/finetuned/BRATS_001.tsv")
    seconds: dict[int, list[float]] = {1: [], cells: []}
    cluster = Cluster(folder / "cluster")
    cluster.start()
    try:
        for _ in range(REPEATS):
            for number in (cells, 1):
                written = sorted(row.with_suffix("").glob("*.json"))
                for path in written[:number]:
                    path.unlink()
                row.unlink(missing_ok=True)
                succeeded(checkout.run(str(row.relative_to(folder))))
                job = cluster.jobs(folder)[-1]
                assert job.state == "COMPLETED"
                assert job.minutes == number + 10
                seconds[number].append(job.end - job.start)
    finally:
        cluster.stop()
    for number, values in seconds.items():
        print(
            f"{number} cell(s): {statistics.median(values):.0f} s "
            f"({min(values):.0f} to {max(values):.0f}) in the allocation"
        )


def main() -> int:
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    # `timeout` must not leave a cluster behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1] == "plan":
            plan(Path(folder), int(sys.argv[2]), int(sys.argv[3]))
        else:
            submission(Path(folder), int(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
