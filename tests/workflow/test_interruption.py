"""Killed in the middle, the next run finishes, with the result of a calm one."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from .conftest import SMALL, Checkout, processes, send, succeeded, trainings, wait_for

MATRIX = "results/similarity/matrix.tsv"


@pytest.fixture
def half_done(finished: Checkout, tmp_path: Path) -> Checkout:
    """The finished run, up to the base model."""
    checkout = Checkout(tmp_path / "half", SMALL)
    checkout.take_results(finished)
    for name in ("similarity", "pruning"):
        shutil.rmtree(checkout.path("results", name))
    for name in ("models", "predictions", "scores"):
        shutil.rmtree(checkout.path("results", name, "finetuned"))
    return checkout


def test_kill_of_a_fine_tune_and_of_snakemake(
    half_done: Checkout, finished: Checkout
) -> None:
    running = half_done.start(MATRIX)

    def checkpoints() -> list[Path]:
        folder = half_done.path("results/models/finetuned")
        return list(folder.glob("*/fold_all/checkpoint_latest.pth"))

    def held() -> Path | None:
        """A checkpoint of a fine-tune that is not at its end, and held there."""
        for checkpoint in checkpoints():
            send(signal.SIGSTOP, trainings(half_done.folder))
            if not checkpoint.with_name("checkpoint_final.pth").exists():
                return checkpoint
            send(signal.SIGCONT, trainings(half_done.folder))
        return None

    try:
        checkpoint = wait_for(held)
        send(signal.SIGKILL, processes("finetune.py", str(half_done.folder)))
        send(signal.SIGCONT, trainings(half_done.folder))
        # Snakemake goes on with the other models; it is killed with the next one.
        wait_for(lambda: [p for p in checkpoints() if p != checkpoint])
        os.killpg(running.pid, signal.SIGKILL)
        send(signal.SIGKILL, processes("finetune.py", str(half_done.folder)))
    finally:
        running.wait()
    assert checkpoint.exists()
    assert not half_done.path(MATRIX).exists()

    # On one core, where the finished run had two: results do not depend on it.
    succeeded(half_done.run(MATRIX))
    case = checkpoint.parents[1].name
    log = half_done.path(f"logs/finetune/{case}.log").read_text()
    assert "going on from iteration" in log
    assert half_done.path(MATRIX).read_bytes() == finished.path(MATRIX).read_bytes()
