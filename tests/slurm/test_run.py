"""The whole workflow on two nodes, with a fine-tune and a predictor that are killed."""

import itertools
import re
import signal
from collections import Counter

import pandas as pd
import pytest

from workflow.conftest import SMALL, Checkout, processes, send, trainings, wait_for

from .cluster import NODES, Cluster, Job, job_environment, run
from .conftest import ClusterCheckout, finish, matrix
from .watch import Seen, Watch, left_over

CASES = 8
POOL = 6
# Refits are submitted as fine-tunes are, and one arm as the other.
CONFIG = {**SMALL, "stability": {"refits": 0}, "pruning": {"random_arms": 0}}


class Outcome:
    """What a test needs to know of the run."""

    def __init__(self, checkout: ClusterCheckout, cancelled: int) -> None:
        self.checkout = checkout
        self.cancelled = cancelled
        self.status = -1
        self.jobs: list[Job] = []
        self.seen: set[Seen] = set()

    def tasks(self, word: str) -> list[Job]:
        return [job for job in self.jobs if job.task.startswith(word)]

    @property
    def gpu_jobs(self) -> list[Job]:
        return [job for job in self.jobs if job.gpus]


def begin_with_the_pool(checkout: Checkout, finished: Checkout) -> None:
    """The cases of the pool are imported, nothing else is done."""
    checkout.take_results(finished)
    kept = [f"/{case}" for case in matrix(finished).index]
    for path in checkout.path("results").rglob("*"):
        raw = path.parent.name in ("imagesTr", "labelsTr")
        if path.is_file() and not (raw and any(case in str(path) for case in kept)):
            path.unlink()


@pytest.fixture(scope="module")
def outcome(
    cluster: Cluster, finished: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    checkout = ClusterCheckout(tmp_path_factory.mktemp("cluster_run"), CONFIG)
    begin_with_the_pool(checkout, finished)
    folder = checkout.folder
    result = Outcome(checkout, cancelled=0)

    def held_finetune() -> int:
        """A fine-tune in the middle of its work, held there: it has a checkpoint."""
        jobs = {str(job.id): job.task for job in cluster.jobs(folder) if job.living}
        held: dict[str, list[int]] = {}
        for pid in trainings(folder):
            held.setdefault(job_environment(pid).get("SLURM_JOB_ID", ""), []).append(
                pid
            )
        for job, pids in held.items():
            if not jobs.get(job, "").startswith("finetune_wildcards_"):
                continue
            case = jobs[job].removeprefix("finetune_wildcards_")
            model = checkout.path(f"results/models/finetuned/{case}/fold_all")
            if (model / "checkpoint_latest.pth").exists():
                send(signal.SIGSTOP, pids)
                if not (model / "checkpoint_final.pth").exists():
                    return int(job)
                send(signal.SIGCONT, pids)
        return 0

    with Watch(folder) as watch:
        process = checkout.start()
        try:
            result.cancelled = wait_for(held_finetune, 400)
            run("scancel", str(result.cancelled))
            # A predictor is shot when its first cell is there.
            cells = checkout.path("results/scores/finetuned")
            wait_for(lambda: any(cells.glob("*/*.json")), 300)
            predictors = wait_for(lambda: processes("--serve", str(folder)), 300)
            send(signal.SIGKILL, predictors[:1])
        finally:
            result.status = finish(process, 500)
    result.seen = watch.seen
    result.jobs = cluster.jobs(folder)
    return result


def test_it_ends_well(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.checkout.log()[-6000:]
    assert outcome.checkout.path("results/pruning/forest.png").exists()


def test_the_matrix_is_that_of_a_local_run(
    outcome: Outcome, finished: Checkout
) -> None:
    assert matrix(finished).shape == (POOL, POOL)
    pd.testing.assert_frame_equal(matrix(outcome.checkout), matrix(finished))


def test_submissions_are_as_computed(outcome: Outcome) -> None:
    number = Counter(re.sub(r"_wildcards_.*", "", job.task) for job in outcome.jobs)
    groups = outcome.tasks("cells_")
    models = 1 + POOL + 1
    assert len(groups) == models
    # Those of the pool were imported before.
    assert number["import_case"] == CASES - POOL
    assert number["preprocess_case"] == CASES
    assert number["augment_case"] == POOL
    # One was cancelled, and submitted again.
    assert number["finetune"] == POOL + 1
    once = ("check_cohort", "plan", "train_base", "channels", "label_edits")
    assert [number[rule] for rule in once] == [1] * 5
    assert number["retrain"] == 1
    assert len(outcome.jobs) == models + 2 * CASES + POOL + 1 + 5 + 1


def test_requests_are_as_computed(outcome: Outcome) -> None:
    for job in outcome.tasks("cells_"):
        cells = POOL if "finetuned" in job.task else CASES
        # A minute for each cell, ten for the job that gathers them.
        assert job.minutes == cells + 10
        assert (job.memory_mb, job.cpus, job.gpus) == (8000, 4, 1)
    for rule in ("train_base", "finetune", "retrain"):
        for job in outcome.tasks(rule):
            assert (job.memory_mb, job.cpus, job.gpus) == (16000, 8, 1)
    first = next(job for job in outcome.jobs if job.id == outcome.cancelled)
    again = [job for job in outcome.tasks("finetune") if job.task == first.task]
    assert [job.minutes for job in again] == [first.minutes, 2 * first.minutes]
    light = ("import_case", "preprocess_case", "augment_case", "plan", "check_cohort")
    assert {job.gpus for rule in light for job in outcome.tasks(rule)} == {0}


def test_both_nodes_work_and_no_gpu_has_two_jobs(outcome: Outcome) -> None:
    assert {job.node for job in outcome.gpu_jobs} == set(NODES)
    for node in NODES:
        jobs = sorted(
            (job for job in outcome.gpu_jobs if job.node == node),
            key=lambda job: job.start,
        )
        for one, next_one in itertools.pairwise(jobs):
            assert one.end <= next_one.start, (one, next_one)


def test_slurm_s_gpu_reaches_training_and_predictor(outcome: Outcome) -> None:
    kinds = {seen.kind for seen in outcome.seen}
    assert {"predictor", "finetune", "train_base", "retrain"} <= kinds
    assert {seen.gpus for seen in outcome.seen} == {"0"}
    # What training took from it: a device that this PyTorch cannot use.
    log = next(outcome.checkout.path("logs/finetune").glob("*.log")).read_text()
    assert "GPU 0 cannot be used" in log


def test_each_submission_has_a_predictor_of_its_own(outcome: Outcome) -> None:
    predictors = [seen for seen in outcome.seen if seen.kind == "predictor"]
    jobs_of = {
        pid: {seen.job for seen in predictors if seen.pid == pid}
        for pid in {seen.pid for seen in predictors}
    }
    assert all(len(jobs) == 1 for jobs in jobs_of.values())
    groups = {str(job.id) for job in outcome.tasks("cells_")}
    assert {seen.job for seen in predictors} <= groups
    assert {seen.node for seen in predictors} == set(NODES)


def test_a_killed_predictor_costs_no_cell(outcome: Outcome) -> None:
    assert {job.state for job in outcome.tasks("cells_")} == {"COMPLETED"}
    logs = outcome.checkout.path("logs/predict").rglob("*.log")
    said = [log for log in logs if "ended in the middle" in log.read_text()]
    assert len(said) <= 1
    restarted = Counter(
        seen.job
        for seen in {(s.kind, s.pid, s.job): s for s in outcome.seen}.values()
        if seen.kind == "predictor"
    )
    assert max(restarted.values()) == 2, restarted


def test_a_cancelled_fine_tune_goes_on_from_its_checkpoint(outcome: Outcome) -> None:
    first = next(job for job in outcome.jobs if job.id == outcome.cancelled)
    assert first.state == "CANCELLED"
    case = first.task.removeprefix("finetune_wildcards_")
    log = outcome.checkout.path(f"logs/finetune/{case}.log").read_text()
    assert "going on from iteration" in log
    assert f"SLURM-job '{first.id}' failed, SLURM status is: 'CANCELLED'" in (
        outcome.checkout.log()
    )


def test_no_process_outlives_its_allocation(outcome: Outcome) -> None:
    jobs = {str(job.id) for job in outcome.jobs}
    wait_for(lambda: not left_over(jobs), 20)


def test_nothing_is_left_to_do(outcome: Outcome) -> None:
    for result in (outcome.checkout.run("-n"), outcome.checkout.run_locally("-n")):
        assert "Nothing to be done" in result.stdout, result.stdout[-3000:]
