import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling
from unit.conftest import TinyCohort
from unit.training.trainings import SCHEDULE, train

from casesim.errors import UserError
from casesim.nnunet.files import read_json, write_json
from casesim.training import batches
from casesim.training.trainer import CaseTrainer

# Forked rather than spawned: a fresh process would import nnU-Net for seconds.
_FORK = multiprocessing.get_context("fork")


def _interrupted(
    number: int,
    after: int,
    cohort: TinyCohort,
    folder: Path,
    group: bool = False,
    **changes: Any,
) -> int | None:
    """Train in a process that sends itself a signal; returns its exit code.

    With `group` its loading processes get the signal, too, as under SLURM. Their ids
    are in workers.txt.
    """

    def run() -> None:
        os.setpgrp()
        step = CaseTrainer.train_step
        count = 0

        def train_step(self: CaseTrainer, batch: dict) -> dict:
            nonlocal count
            count += 1
            if count == after:
                ids = [str(child.pid) for child in multiprocessing.active_children()]
                (folder / "workers.txt").write_text("\n".join(ids))
                (os.killpg if group else os.kill)(os.getpid(), number)
            outcome: dict = step(self, batch)
            return outcome

        CaseTrainer.train_step = train_step  # type: ignore[method-assign]
        train(cohort, folder, **changes)

    process = _FORK.Process(target=run)
    process.start()
    process.join(120)
    assert not process.is_alive()
    return process.exitcode


_LATEST = Path("fold_all", "checkpoint_latest.pth")


@pytest.mark.parametrize(
    ("minutes", "iteration"),
    [pytest.param(0, 3, id="epochs"), pytest.param(1e-9, 4, id="iterations")],
)
def test_a_killed_training_goes_on_where_it_was(
    tiny_cohort: TinyCohort,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    minutes: float,
    iteration: int,
) -> None:
    # In its fifth iteration of six, the second of its second epoch.
    code = _interrupted(
        signal.SIGKILL, 5, tiny_cohort, tmp_path, checkpoint_minutes=minutes
    )
    assert code == -signal.SIGKILL
    assert (tmp_path / _LATEST).exists()
    assert not (tmp_path / "fold_all" / "checkpoint_final.pth").exists()
    # What a kill in the middle of writing leaves.
    (tmp_path / "fold_all" / ".tmp-half.pth").write_bytes(b"half")
    resumed = train(tiny_cohort, tmp_path, checkpoint_minutes=minutes, workers=2)
    assert f"going on from iteration {iteration}" in capsys.readouterr().out
    assert resumed.read_bytes() == trained.read_bytes()
    left = [path.name for path in resumed.parent.iterdir() if path.is_file()]
    assert left == [resumed.name]


@pytest.mark.parametrize(
    ("number", "workers", "group"),
    [
        (signal.SIGTERM, 0, False),
        (signal.SIGTERM, 2, False),
        (signal.SIGTERM, 2, True),
        (signal.SIGINT, 0, False),
    ],
)
def test_a_time_limit_loses_nothing(
    tiny_cohort: TinyCohort,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    workers: int,
    group: bool,
) -> None:
    code = _interrupted(number, 2, tiny_cohort, tmp_path, group, workers=workers)
    assert code == 128 + number
    assert (tmp_path / _LATEST).exists()
    resumed = train(tiny_cohort, tmp_path)
    assert "going on from iteration 2" in capsys.readouterr().out
    assert resumed.read_bytes() == trained.read_bytes()


def test_a_killed_loading_process_ends_the_training(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    # The out-of-memory killer takes one; the training must neither wait nor go on.
    step = CaseTrainer.train_step

    def train_step(self: CaseTrainer, batch: dict) -> dict:
        for child in multiprocessing.active_children():
            child.kill()
        outcome: dict = step(self, batch)
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaseTrainer, "train_step", train_step)
        schedule = SCHEDULE | {"iterations_per_epoch": 20}
        with pytest.raises(UserError, match=r"was killed \(.*more mem_mb"):
            train(tiny_cohort, tmp_path, workers=1, schedule=schedule)
    assert not (tmp_path / "fold_all" / "checkpoint_final.pth").exists()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        RuntimeError("Pin memory thread exited unexpectedly"),
    ],
)
def test_a_worker_that_is_killed_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As it hands a batch over, say."""

    def loader(*_: Any, **__: Any) -> Iterator[int]:
        yield 1
        raise error

    monkeypatch.setattr(batches, "DataLoader", loader)
    found: Iterator[Any] = batches.iterate(Dataset(), range(2), 1, torch.device("cpu"))
    assert next(found) == 1
    with pytest.raises(UserError, match=r"was killed \(.*(reset|exited)"):
        next(found)


def test_a_worker_that_dies_interrupts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch's handler raises an error wherever the main thread is when it does."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    found = batches.iterate(Endless(), range(9), 1, torch.device("cpu"))
    assert next(found) == {"number": 0}
    assert signal.getsignal(signal.SIGCHLD) is before


class Endless(Dataset[dict[str, Any]]):
    """Batches without content."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"number": index}


def test_another_error_of_a_worker_is_told_as_it_is() -> None:
    class Faulty(Endless):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise RuntimeError("no such class location")

    found = batches.iterate(Faulty(), range(9), 1, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="no such class location"):
        next(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_loading_process_outlives_a_killed_training(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    _interrupted(signal.SIGKILL, 1, tiny_cohort, tmp_path, workers=2)
    workers = (tmp_path / "workers.txt").read_text().split()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_signals_act_as_before_afterwards(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(tiny_cohort, tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.fixture(scope="module")
def latest(tiny_cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("latest")
    _interrupted(signal.SIGTERM, 2, tiny_cohort, folder)
    return (folder / _LATEST).read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_checkpoint_is_ignored(
    tiny_cohort: TinyCohort,
    trained: Path,
    latest: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    path = tmp_path / _LATEST
    path.parent.mkdir()
    path.write_bytes(
        {
            "truncated": latest[: len(latest) // 2],
            "empty": b"",
            "foreign": trained.read_bytes(),
        }[damage]
    )
    result = train(tiny_cohort, tmp_path)
    assert "starting anew" in capsys.readouterr().out
    assert result.read_bytes() == trained.read_bytes()
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    ["epochs", "initial_lr", "seed", "cases", "start_from", "plans"],
)
def test_a_checkpoint_of_another_training_is_ignored(
    tiny_cohort: TinyCohort,
    trained: Path,
    latest: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
) -> None:
    path = tmp_path / _LATEST
    path.parent.mkdir()
    path.write_bytes(latest)
    plans = tmp_path / "plans_of_another_cohort.json"
    content = read_json(tiny_cohort.plans)
    content["original_median_shape_after_transp"] = [1, 1, 1]
    write_json(plans, content)
    options: dict[str, dict[str, Any]] = {
        "epochs": {"schedule": SCHEDULE | {"epochs": 1}},
        "initial_lr": {"schedule": SCHEDULE | {"initial_lr": 0.02}},
        "seed": {"seed": 3},
        "cases": {"cases": tiny_cohort.stems[1:]},
        "start_from": {"start_from": trained},
        "plans": {"plans": plans},
    }
    train(tiny_cohort, tmp_path, **options[change])
    assert "other inputs: starting anew" in capsys.readouterr().out
