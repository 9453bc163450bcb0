"""Kills at random on a cluster of two nodes: SLURM's daemons, its jobs, Snakemake.

In full only; each kind at a chosen moment is in `tests/slurm/test_faults.py`.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from slurm.cluster import NODES, Cluster, run, why_not
from slurm.conftest import ClusterCheckout, cluster
from slurm.watch import left_over

from workflow.conftest import Checkout, send, wait_for

from .conftest import FULL, SEED, TARGETS, TINY, tables
from .kills import begun, go_back, has_begun, living

KILLS = int(os.environ.get("RELIABILITY_CLUSTER_KILLS", "24"))
KINDS = (
    *("slurmd", "slurmctld", "step of a job"),
    *("client", "predictor", "trainer", "warm process", "Snakemake"),
)
# Where every kind of job is still to be done.
STAGE = "half of the models are fine-tuned"
SECONDS_TO_FIND = 30.0

__all__ = ["cluster"]
pytestmark = [
    pytest.mark.skipif(not FULL, reason="make reliability"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "no cluster"),
]


def kill(
    kind: str,
    where: Cluster,
    checkout: Checkout,
    running: "subprocess.Popen[bytes]",
    draw: random.Random,
) -> bool:
    """False where there is nobody of that kind."""
    if kind == "slurmd":
        node = draw.choice(sorted(NODES))
        where.kill_node(node)
        # What ran there ends with it, as when a node reboots.
        where.end_processes(node)
        time.sleep(draw.uniform(0, 5))
        where.start_node(node)
        return True
    if kind == "slurmctld":
        where.kill_controller()
        time.sleep(draw.uniform(0, 5))
        where.start_controller()
        return True
    if kind == "Snakemake":
        os.killpg(running.pid, signal.SIGKILL)
        return True
    deadline = time.monotonic() + SECONDS_TO_FIND
    while time.monotonic() < deadline and running.poll() is None:
        pids = (
            [pid for node in NODES for pid in where.processes_of(node)]
            if kind == "step of a job"
            else living(kind, checkout.folder, running)
        )
        if pids:
            send(signal.SIGKILL, [draw.choice(pids)])
            return True
        time.sleep(0.05)
    return False


def resume_nodes() -> None:
    """As an administrator does.

    A controller that is killed before it has saved its state gives numbers of jobs
    again, and drains the node that knows such a job.
    """
    for line in run("sinfo", "-h", "-N", "-o", "%N %T").splitlines():
        node, state = line.split()
        if "drain" in state:
            run("scontrol", "update", f"nodename={node}", "state=resume")


def end_jobs(where: Cluster, checkout: Checkout) -> None:
    """What the message of a second start asks for: living jobs are cancelled."""
    living_jobs = [str(job.id) for job in where.jobs(checkout.folder) if job.living]
    if living_jobs:
        run("scancel", *living_jobs)
    jobs = {str(job.id) for job in where.jobs(checkout.folder)}
    wait_for(
        lambda: (
            not any(job.living for job in where.jobs(checkout.folder))
            and not left_over(jobs)
        ),
        120,
    )


@pytest.mark.timeout(2 * 3600)
def test_kills_on_a_cluster(
    cluster: Cluster,
    undisturbed: Checkout,
    tmp_path: Path,
    count: Counter[str],
) -> None:
    draw = random.Random(SEED)
    checkout = ClusterCheckout(tmp_path / "study", TINY)
    checkout.take_results(undisturbed)
    go_back(checkout, STAGE)
    done: list[str] = []
    # All kinds in turn, in another order each time.
    kinds: list[str] = []
    for _ in range(3 * KILLS):
        running = checkout.start(*TARGETS)
        while running.poll() is None and len(done) < KILLS:
            kinds = kinds or draw.sample(KINDS, len(KINDS))
            enough = begun(checkout) + draw.randint(0, 2)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not has_begun(
                checkout, running, enough
            ):
                time.sleep(0.1)
            time.sleep(draw.uniform(0, 4))
            kind = kinds.pop()
            if running.poll() is None and kill(kind, cluster, checkout, running, draw):
                print(f"{time.strftime('%X')} killed: {kind}", flush=True)
                done.append(kind)
        status = running.wait(900)
        print(f"{time.strftime('%X')} ended: {status}", flush=True)
        resume_nodes()
        cluster.wait_for_nodes()
        end_jobs(cluster, checkout)
        if status == 0:
            if len(done) >= KILLS:
                break
            assert tables(checkout) == tables(undisturbed)
            go_back(checkout, STAGE)
    else:
        pytest.fail(checkout.log()[-3000:])
    assert tables(checkout) == tables(undisturbed)
    count["kills survived"] += len(done)
    for kind in done:
        count[f"kills of {kind} on a cluster, SIGKILL"] += 1
