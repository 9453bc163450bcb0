import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from unit.conftest import HELD_OUT, POOL, TinyCohort

from casesim.errors import UserError
from casesim.inference import overlap, predictor
from casesim.nnunet import nnunet
from casesim.training import trainer

SCHEDULE = {"epochs": 2, "iterations_per_epoch": 3, "initial_lr": 0.01}
CPU = torch.device("cpu")

# Forked rather than spawned: a fresh process would import nnU-Net for seconds.
_FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _train(cohort: TinyCohort, folder: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {
        "cases": cohort.stems,
        "plans": cohort.plans,
        "dataset": cohort.dataset,
        "configuration": "2d",
        "out_folder": folder,
        "schedule": SCHEDULE,
        "seed": 0,
        "threads": 1,
        "device": "cpu",
    }
    return trainer.train(**(options | changes))


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = nnunet.read_checkpoint(checkpoint)[
        "network_weights"
    ]
    return weights


def _equal(first: Path, second: Path) -> bool:
    return all(
        torch.equal(weight, _weights(second)[name])
        for name, weight in _weights(first).items()
    )


@pytest.fixture(scope="module")
def trained(tiny_cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return _train(tiny_cohort, tmp_path_factory.mktemp("trained"))


def _trainer(cohort: TinyCohort) -> trainer.CaseTrainer:
    built = trainer.CaseTrainer(
        nnunet.read_json(cohort.plans),
        "2d",
        "all",
        nnunet.read_json(cohort.dataset),
        CPU,
    )
    built.initialize(SCHEDULE, 0, None)
    return built


def _batches(
    cohort: TinyCohort, number: int, start: int = 0, workers: int = 0, **changes: Any
) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"stems": cohort.stems, "memory_mb": 1000.0} | changes
    batches = _trainer(cohort).batches(trainer.Cases(**options), 0, trainer._TRAINING)
    return list(trainer.iterate(batches, range(start, start + number), workers, CPU))


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return (
        list(first["keys"]) == list(second["keys"])
        and torch.equal(first["data"], second["data"])
        and all(
            torch.equal(one, other)
            for one, other in zip(first["target"], second["target"], strict=True)
        )
    )


# Batches


@pytest.fixture(scope="module")
def batches(tiny_cohort: TinyCohort) -> list[dict[str, Any]]:
    return _batches(tiny_cohort, 7)


def test_batches_differ_from_each_other(batches: list[dict[str, Any]]) -> None:
    assert not any(_same(batches[0], other) for other in batches[1:])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_loading_processes_gives_the_same_batches(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]], workers: int
) -> None:
    others = _batches(tiny_cohort, 7, workers=workers)
    assert all(_same(*pair) for pair in zip(batches, others, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_can_start_anywhere(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]], workers: int
) -> None:
    others = _batches(tiny_cohort, 4, start=3, workers=workers)
    assert all(_same(*pair) for pair in zip(batches[3:], others, strict=True))


def test_cases_on_disk_give_the_same_batches(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    assert trainer.Cases(tiny_cohort.stems, 1000).in_memory
    assert not trainer.Cases(tiny_cohort.stems, 0.1).in_memory
    others = _batches(tiny_cohort, 2, memory_mb=0.1)
    assert all(_same(*pair) for pair in zip(batches, others, strict=False))


def test_the_order_of_the_cases_does_not_matter(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    others = _batches(tiny_cohort, 2, stems=tiny_cohort.stems[::-1])
    assert all(_same(*pair) for pair in zip(batches, others, strict=False))


def test_batches_are_those_of_nnunets_loader(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    ours = (
        _trainer(tiny_cohort)
        .batches(trainer.Cases(tiny_cohort.stems, 1000), 0, trainer._TRAINING)
        .loader
    )
    names = [stem.name for stem in tiny_cohort.stems]
    theirs = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(tiny_cohort.stems[0].parent), names),
        ours.batch_size,
        ours.patch_size[1:],
        ours.final_patch_size[1:],
        _trainer(tiny_cohort).label_manager,
        oversample_foreground_percent=0.33,
        transforms=ours.transforms,
    )
    trainer.seed_all(0, trainer._TRAINING, 0)
    assert _same(batches[0], next(theirs))


def test_no_transform_chooses_its_algorithm_by_the_clock(
    tiny_cohort: TinyCohort,
) -> None:
    batches = _trainer(tiny_cohort).batches(
        trainer.Cases(tiny_cohort.stems, 1000), 0, trainer._TRAINING
    )
    text = str(batches.loader.transforms.transforms)
    assert "GaussianBlurTransform" in text
    assert "benchmark = False" in text
    assert "benchmark = True" not in text


def test_cases_need_names_of_their_own(tiny_cohort: TinyCohort) -> None:
    with pytest.raises(ValueError, match="same file name"):
        trainer.Cases([tiny_cohort.stems[0]] * 2, 1000)


# Training


def test_a_model_folder_and_nothing_else(
    tiny_cohort: TinyCohort, trained: Path
) -> None:
    folder = trained.parent.parent
    files = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    assert sorted(files) == [
        "dataset.json",
        "fold_all/checkpoint_final.pth",
        "plans.json",
        "progress.png",
    ]
    model = nnunet.load_model(trained, "cpu")
    assert model.allowed_mirroring_axes == (0, 1)
    data, _, _ = nnunet.load_preprocessed(tiny_cohort.stem(HELD_OUT[0]))
    logits = model.network(torch.from_numpy(data[None, :, 4, :24, :24]))
    assert logits.shape == (1, 4, 24, 24)


def test_the_same_seed_gives_the_same_file(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    np.random.seed(99)
    torch.manual_seed(99)
    again = _train(
        tiny_cohort,
        tmp_path,
        cases=tiny_cohort.stems[::-1],
        workers=2,
        validate_every=1,
    )
    assert again.read_bytes() == trained.read_bytes()


def test_another_seed_gives_other_weights(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    assert not _equal(_train(tiny_cohort, tmp_path, seed=1), trained)


def test_the_loss_falls(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"epochs": 4, "iterations_per_epoch": 10, "initial_lr": 0.01}
    _train(tiny_cohort, tmp_path, schedule=schedule, validate_every=2)
    log = capsys.readouterr().out
    losses = [float(value) for value in re.findall(r"loss (-?[\d.]+)", log)]
    assert len(losses) == 4
    assert losses[3] < losses[0] - 0.5
    rates = [float(value) for value in re.findall(r"lr ([\d.]+)", log)]
    # Poly: initial_lr (1 - epoch / epochs)^0.9
    assert rates == pytest.approx(
        [0.01 * (1 - e / 4) ** 0.9 for e in range(4)], abs=1e-6
    )
    pseudo_dice = re.findall(r"pseudo-Dice of the training cases (.*)", log)
    assert len(pseudo_dice) == 2
    assert float(pseudo_dice[1].split()[0]) > 0.5


def test_a_finetune_starts_from_all_weights(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    # With a learning rate of zero the end is the start.
    schedule = SCHEDULE | {"initial_lr": 0.0}
    tuned = _train(tiny_cohort, tmp_path, start_from=trained, schedule=schedule, seed=5)
    weights = _weights(trained)
    assert any(".seg_layers." in name for name in weights)
    assert _equal(tuned, trained)


def test_a_finetune_moves_on_from_there(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    tuned = _train(
        tiny_cohort,
        tmp_path,
        cases=tiny_cohort.stems[:1],
        start_from=trained,
        schedule=SCHEDULE | {"initial_lr": 1e-4},
        storage="float16",
    )
    assert not _equal(tuned, trained)
    assert tuned.stat().st_size < 0.6 * trained.stat().st_size
    for name, weight in _weights(tuned).items():
        torch.testing.assert_close(
            weight, _weights(trained)[name], atol=0.02, rtol=0.02
        )


def test_half_precision_changes_no_score(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    schedule = {"epochs": 1, "iterations_per_epoch": 60, "initial_lr": 0.02}
    full = _train(tiny_cohort, tmp_path / "full", schedule=schedule)
    content = nnunet.read_checkpoint(full)
    half = nnunet.save_model(
        tmp_path / "half",
        content["network_weights"],
        nnunet.read_json(tiny_cohort.plans),
        nnunet.read_json(tiny_cohort.dataset),
        "2d",
        content["inference_allowed_mirroring_axes"],
        storage="float16",
    )
    assert not _equal(full, half)
    tuned = {"float32": full, "float16": half}
    for case, stem in zip(POOL, tiny_cohort.stems, strict=True):
        data, _, properties = nnunet.load_preprocessed(stem)
        reference = predictor.read_label_map(tiny_cohort.label(case))
        scores = {}
        for storage, checkpoint in tuned.items():
            model = nnunet.load_model(checkpoint, CPU)
            logits = predictor.predict_logits(model, data)
            predicted = predictor.to_label_map(model, logits, properties)
            counts = overlap.count(predicted, reference, {"1": [1], "WT": [1, 2, 3]})
            scores[storage] = [
                overlap.dice(c["tp"], c["fp"], c["fn"]) for c in counts.values()
            ]
        assert min(scores["float32"]) > 0.1  # the model has learnt something to lose
        assert scores["float16"] == pytest.approx(scores["float32"], abs=1e-3)


def test_trainings_in_one_folder_wait_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = threading.Event()

    def second() -> None:
        with trainer._only_training_in(tmp_path):
            entered.set()

    thread = threading.Thread(target=second)
    with trainer._only_training_in(tmp_path):
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    thread.join()
    assert "Waiting for another training" in capsys.readouterr().out


def test_start_weights_of_another_network(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained, weights_only=True)
    weights = content["network_weights"]
    head = next(name for name in weights if ".seg_layers." in name)
    weights[head] = weights[head][:2]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit"):
        _train(tiny_cohort, tmp_path / "a", start_from=tmp_path / "other.pth")
    del weights[head]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit"):
        _train(tiny_cohort, tmp_path / "a", start_from=tmp_path / "other.pth")


def test_a_training_that_diverges_says_so(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="lower initial_lr"):
        _train(tiny_cohort, tmp_path, schedule=SCHEDULE | {"initial_lr": 1e30})
    assert not (tmp_path / "fold_all" / "checkpoint_final.pth").exists()


def test_a_missing_case_is_named(tiny_cohort: TinyCohort, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        _train(tiny_cohort, tmp_path, cases=[tmp_path / "nowhere"])


# Interruption


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
        step = trainer.CaseTrainer.train_step
        count = 0

        def train_step(self: trainer.CaseTrainer, batch: dict) -> dict:
            nonlocal count
            count += 1
            if count == after:
                ids = [str(child.pid) for child in multiprocessing.active_children()]
                (folder / "workers.txt").write_text("\n".join(ids))
                (os.killpg if group else os.kill)(os.getpid(), number)
            outcome: dict = step(self, batch)
            return outcome

        trainer.CaseTrainer.train_step = train_step
        _train(cohort, folder, **changes)

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
    resumed = _train(tiny_cohort, tmp_path, checkpoint_minutes=minutes, workers=2)
    assert f"going on from iteration {iteration}" in capsys.readouterr().out
    assert resumed.read_bytes() == trained.read_bytes()
    assert [path.name for path in resumed.parent.iterdir()] == [resumed.name]


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
    resumed = _train(tiny_cohort, tmp_path)
    assert "going on from iteration 2" in capsys.readouterr().out
    assert resumed.read_bytes() == trained.read_bytes()


def test_a_killed_loading_process_ends_the_training(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    # The out-of-memory killer takes one; the training must neither wait nor go on.
    step = trainer.CaseTrainer.train_step

    def train_step(self: trainer.CaseTrainer, batch: dict) -> dict:
        for child in multiprocessing.active_children():
            child.kill()
        outcome: dict = step(self, batch)
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.CaseTrainer, "train_step", train_step)
        schedule = SCHEDULE | {"iterations_per_epoch": 20}
        with pytest.raises(RuntimeError, match="worker"):
            _train(tiny_cohort, tmp_path, workers=1, schedule=schedule)
    assert not (tmp_path / "fold_all" / "checkpoint_final.pth").exists()


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
    _train(tiny_cohort, tmp_path)
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
    result = _train(tiny_cohort, tmp_path)
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
    content = nnunet.read_json(tiny_cohort.plans)
    content["original_median_shape_after_transp"] = [1, 1, 1]
    nnunet.write_json(plans, content)
    options: dict[str, dict[str, Any]] = {
        "epochs": {"schedule": SCHEDULE | {"epochs": 1}},
        "initial_lr": {"schedule": SCHEDULE | {"initial_lr": 0.02}},
        "seed": {"seed": 3},
        "cases": {"cases": tiny_cohort.stems[1:]},
        "start_from": {"start_from": trained},
        "plans": {"plans": plans},
    }
    _train(tiny_cohort, tmp_path, **options[change])
    assert "other inputs: starting anew" in capsys.readouterr().out


def test_loading_processes_by_threads_and_device() -> None:
    cuda = torch.device("cuda")
    assert [trainer._suitable_workers(n, CPU) for n in (1, 2, 4, 16)] == [0, 0, 0, 1]
    assert [trainer._suitable_workers(n, cuda) for n in (1, 2, 4, 16)] == [0, 0, 2, 14]
