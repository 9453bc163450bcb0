"""Kills at random on a cluster of two nodes: slurmd, controller, jobs, Snakemake.

In full only; each kind at a chosen moment is in `tests/slurm/test_faults.py`.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from slurm.cluster import NODES, Cluster, run, why_not
from slurm.conftest import ClusterCheckout, cluster
from slurm.watch import left_over

from workflow.conftest import Checkout, send, wait_for

from .conftest import FULL, SEED, TARGETS, TINY, tables
from .kills import go_back

KILLS = int(os.environ.get("RELIABILITY_CLUSTER_KILLS", "12"))
KINDS = ("slurmd", "slurmctld", "process of a job", "Snakemake on a cluster")

__all__ = ["cluster"]
pytestmark = [
    pytest.mark.skipif(not FULL, reason="make reliability"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "no cluster"),
]


def kill(kind: str, where: Cluster, snakemake: int, draw: random.Random) -> bool:
    """False where there is nobody of that kind."""
    node = draw.choice(sorted(NODES))
    if kind == "slurmd":
        where.kill_node(node)
        # What ran there ends with it, as when a node reboots.
        where.end_processes(node)
        time.sleep(draw.uniform(0, 5))
        where.start_node(node)
    elif kind == "slurmctld":
        where.kill_controller()
        time.sleep(draw.uniform(0, 5))
        where.start_controller()
    elif kind == "process of a job":
        pids = [pid for name in NODES for pid in where.processes_of(name)]
        send(signal.SIGKILL, [draw.choice(pids)] if pids else [])
        return bool(pids)
    else:
        os.killpg(snakemake, signal.SIGKILL)
    return True


def end_jobs(where: Cluster, checkout: Checkout) -> None:
    """What the message of a second start asks for: living jobs are cancelled."""
    living = [str(job.id) for job in where.jobs(checkout.folder) if job.living]
    if living:
        run("scancel", *living)
    jobs = {str(job.id) for job in where.jobs(checkout.folder)}
    wait_for(
        lambda: (
            not any(job.living for job in where.jobs(checkout.folder))
            and not left_over(jobs)
        ),
        120,
    )


@pytest.mark.timeout(3600)
def test_kills_on_a_cluster(
    cluster: Cluster,
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
) -> None:
    draw, done = random.Random(SEED), 0
    checkout = ClusterCheckout(tmp_path / "study", TINY)
    checkout.take_results(undisturbed)
    go_back(checkout, "half of the models are fine-tuned")
    for _ in range(3 * KILLS):
        running = checkout.start(*TARGETS)
        while running.poll() is None and done < KILLS:
            time.sleep(draw.uniform(4, 12))
            kind = draw.choice(KINDS)
            if running.poll() is None and kill(kind, cluster, running.pid, draw):
                print(f"killed: {kind}")
                count[f"kills of {kind}, SIGKILL"] += 1
                count["kills survived"] += 1
                done += 1
        status = running.wait(900)
        cluster.wait_for_nodes()
        end_jobs(cluster, checkout)
        if status == 0:
            break
    else:
        pytest.fail(checkout.log()[-3000:])
    assert tables(checkout) == tables(undisturbed)
