"""A node, Snakemake, SLURM's controller or the time is lost: nothing finished is.

Each test starts from the finished local run, without the rows of one or two models.
"""

import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from workflow.conftest import (
    SMALL,
    Checkout,
    processes,
    send,
    succeeded,
    trainings,
    wait_for,
)

from .cluster import Cluster, job_environment, run
from .conftest import MATRIX, ClusterCheckout, finish, matrix
from .watch import left_over


def rows(checkout: Checkout) -> list[str]:
    folder = checkout.path("results/scores/finetuned")
    return sorted(path.stem for path in folder.glob("*.tsv"))


def part_of(
    finished: Checkout, folder: Path, lost: int, models: bool
) -> ClusterCheckout:
    """A copy of the finished run that lacks the first rows, their models if asked."""
    checkout = ClusterCheckout(folder, SMALL)
    checkout.take_results(finished)
    for row in rows(finished)[:lost]:
        for place in ("predictions", "scores", *(["models"] if models else [])):
            shutil.rmtree(checkout.path("results", place, "finetuned", row))
        checkout.path(f"results/scores/finetuned/{row}.tsv").unlink()
    for name in ("similarity", "pruning"):
        shutil.rmtree(checkout.path("results", name))
    return checkout


def cells(checkout: Checkout) -> dict[str, int]:
    """When each cell of the matrix was written."""
    folder = checkout.path("results/scores/finetuned")
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/*.json")}


def new_cells(checkout: Checkout, before: dict[str, int]) -> list[str]:
    return [path for path in cells(checkout) if path not in before]


def done_twice(checkout: Checkout, before: dict[str, int]) -> list[str]:
    """Cells that were there, and have been written again."""
    now = cells(checkout)
    return [path for path, written in before.items() if now.get(path) != written]


def hold(cluster: Cluster, checkout: Checkout) -> list[int]:
    """Stop the processes of all living jobs, which then cannot end by themselves.

    None are returned while a job is about to begin or to end: call again.
    """
    living = [job for job in cluster.jobs(checkout.folder) if job.living]
    jobs = {str(job.id) for job in living}
    stopped = left_over(jobs)
    send(signal.SIGSTOP, stopped)
    # Only one that was not stopped yet can have started another one.
    settled = (
        all(job.state == "RUNNING" for job in living)
        and {job_environment(pid).get("SLURM_JOB_ID") for pid in stopped} == jobs
        and left_over(jobs) == stopped
    )
    return stopped if settled else []


def leave_nothing(cluster: Cluster, checkout: Checkout) -> None:
    jobs = {str(job.id) for job in cluster.jobs(checkout.folder)}
    wait_for(lambda: not left_over(jobs), 30)


def test_a_node_that_fails_under_a_group(
    cluster: Cluster, finished: Checkout, tmp_path: Path
) -> None:
    checkout = part_of(finished, tmp_path / "run", lost=2, models=False)
    before = cells(checkout)
    process = checkout.start(MATRIX)
    node = ""
    try:
        wait_for(lambda: new_cells(checkout, before), 120)
        group = next(j for j in cluster.jobs(checkout.folder) if j.state == "RUNNING")
        node = group.node
        # Its processes are held, so that the group cannot end before SLURM misses it.
        send(
            signal.SIGSTOP,
            (
                pid
                for pid in processes("--serve", str(checkout.folder))
                if job_environment(pid).get("SLURM_JOB_ID") == str(group.id)
            ),
        )
        cluster.kill_node(node)
        status = finish(process, 200)
    finally:
        if node:
            cluster.end_processes(node)
            cluster.start_node(node)
            cluster.wait_for_nodes()
    assert status != 0
    assert f"{group.id} NODE_FAIL {group.task}" in checkout.log()
    leave_nothing(cluster, checkout)

    kept = cells(checkout)
    assert len(kept) < len(cells(finished))
    assert set(before) < set(kept)
    succeeded(checkout.run(MATRIX))
    assert done_twice(checkout, kept) == []
    pd.testing.assert_frame_equal(matrix(checkout), matrix(finished))


def test_snakemake_killed_while_its_jobs_run(
    cluster: Cluster, finished: Checkout, tmp_path: Path
) -> None:
    checkout = part_of(finished, tmp_path / "run", lost=2, models=True)
    before = cells(checkout)
    process = checkout.start(MATRIX)

    def running(word: str) -> list[str]:
        jobs = cluster.jobs(checkout.folder)
        return [str(j.id) for j in jobs if j.living and j.task.startswith(word)]

    try:
        wait_for(lambda: running("finetune"), 120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    held = wait_for(lambda: hold(cluster, checkout), 60)
    living = running("")
    assert living

    # They would be submitted a second time.
    again = checkout.run(MATRIX)
    assert again.returncode != 0
    assert f"scancel {' '.join(living)}" in again.stdout
    assert "finetune_wildcards_" in again.stdout
    assert running("") == living

    run("scancel", *living)
    send(signal.SIGCONT, held)
    wait_for(lambda: not running(""), 30)
    kept = cells(checkout)
    number = len(cluster.jobs(checkout.folder))
    succeeded(checkout.run(MATRIX))
    assert done_twice(checkout, {**before, **kept}) == []
    pd.testing.assert_frame_equal(matrix(checkout), matrix(finished))
    # Two groups, and at most the two fine-tunes and their copies.
    assert 2 <= len(cluster.jobs(checkout.folder)) - number <= 6
    leave_nothing(cluster, checkout)


def test_a_fine_tune_over_its_time_goes_on_while_slurm_is_away(
    cluster: Cluster, finished: Checkout, tmp_path: Path
) -> None:
    checkout = part_of(finished, tmp_path / "run", lost=1, models=True)
    row = rows(finished)[0]
    target = f"results/models/finetuned/{row}/plans.json"
    process = checkout.start(target, "--set-resources", "finetune:runtime=attempt")
    try:
        latest = checkout.path(
            f"results/models/finetuned/{row}/fold_all/checkpoint_latest.pth"
        )
        wait_for(latest.exists, 120)
        # Held until its minute is over.
        send(signal.SIGSTOP, trainings(checkout.folder))
        assert not latest.with_name("checkpoint_final.pth").exists()
        cluster.kill_controller()
        with pytest.raises(AssertionError):
            wait_for(lambda: process.poll() is not None, 30)
        cluster.start_controller()
    finally:
        status = finish(process, 200)
    assert status == 0, checkout.log()[-4000:]
    first, second = [
        job
        for job in cluster.jobs(checkout.folder)
        if job.task.startswith("finetune_wildcards_")
    ]
    assert (first.state, second.state) == ("TIMEOUT", "COMPLETED")
    assert (first.minutes, second.minutes) == (1, 2)
    log = checkout.path(f"logs/finetune/{row}.log").read_text()
    assert "going on from iteration" in log
    # Resumed, it has the weights of a fine-tune that was never interrupted.
    succeeded(checkout.run(MATRIX))
    pd.testing.assert_frame_equal(matrix(checkout), matrix(finished))
    leave_nothing(cluster, checkout)


@pytest.mark.parametrize(
    ("resources", "task", "why"),
    [
        (["finetune:slurm_partition=nowhere"], "finetune", "invalid partition"),
        (["finetune:mem_mb=99000000"], "finetune", "not available"),
        (["predict:slurm_partition=nowhere"], "cells_finetuned", "invalid partition"),
        (["predict:mem_mb=99000000"], "cells_finetuned", "not available"),
    ],
)
def test_a_refused_request_is_explained_before_anything_is_submitted(
    cluster: Cluster,
    finished: Checkout,
    tmp_path: Path,
    resources: list[str],
    task: str,
    why: str,
) -> None:
    checkout = part_of(finished, tmp_path / "run", lost=1, models=True)
    process = checkout.start(MATRIX, "--set-resources", *resources)
    assert finish(process, 60) != 0
    assert "SLURM refuses" in checkout.log()
    assert task in checkout.log()
    assert why in checkout.log()
    assert cluster.jobs(checkout.folder) == []
