import json
import multiprocessing
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.conftest import HELD_OUT, POOL, TinyCohort
from unit.training.trainings import SCHEDULE, equal, train, weights

from casesim.errors import UserError
from casesim.inference import label_maps, overlap, sliding_window
from casesim.nnunet import checkpoints, preprocessing
from casesim.nnunet.files import read_json
from casesim.training import exclusion, run
from casesim.training.iterations import Iterations
from casesim.training.trainer import CaseTrainer

CPU = torch.device("cpu")


def test_a_model_folder_and_nothing_else(
    tiny_cohort: TinyCohort, trained: Path
) -> None:
    folder = trained.parent.parent
    files = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    kept = [str(path) for path in files if ".kept" not in path.parts]
    assert sorted(kept) == [
        "dataset.json",
        "fold_all/checkpoint_final.pth",
        "plans.json",
        "progress.json",
        "progress.png",
    ]
    epochs = json.loads((folder / "progress.json").read_text())
    assert len(epochs) == SCHEDULE["epochs"]
    assert all(epoch["seconds"] > 0 for epoch in epochs)
    model = checkpoints.load_model(trained, "cpu")
    assert model.allowed_mirroring_axes == (0, 1)
    data, _, _ = preprocessing.load_preprocessed(tiny_cohort.stem(HELD_OUT[0]))
    logits = model.network(torch.from_numpy(data[None, :, 4, :24, :24]))
    assert logits.shape == (1, 4, 24, 24)


def test_the_same_seed_gives_the_same_file(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    np.random.seed(99)
    torch.manual_seed(99)
    again = train(
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
    assert not equal(train(tiny_cohort, tmp_path, seed=1), trained)


def test_the_loss_falls(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"epochs": 4, "iterations_per_epoch": 10, "initial_lr": 0.01}
    train(tiny_cohort, tmp_path, schedule=schedule, validate_every=2)
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
    tuned = train(tiny_cohort, tmp_path, start_from=trained, schedule=schedule, seed=5)
    assert any(".seg_layers." in name for name in weights(trained))
    assert equal(tuned, trained)


def test_a_finetune_moves_on_from_there(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    tuned = train(
        tiny_cohort,
        tmp_path,
        cases=tiny_cohort.stems[:1],
        start_from=trained,
        schedule=SCHEDULE | {"initial_lr": 1e-4},
        storage="float16",
    )
    assert not equal(tuned, trained)
    assert tuned.stat().st_size < 0.6 * trained.stat().st_size
    for name, weight in weights(tuned).items():
        torch.testing.assert_close(weight, weights(trained)[name], atol=0.02, rtol=0.02)


def test_half_precision_changes_no_score(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    schedule = {"epochs": 1, "iterations_per_epoch": 60, "initial_lr": 0.02}
    full = train(tiny_cohort, tmp_path / "full", schedule=schedule)
    content = checkpoints.read_checkpoint(full)
    half = checkpoints.save_model(
        tmp_path / "half",
        content["network_weights"],
        read_json(tiny_cohort.plans),
        read_json(tiny_cohort.dataset),
        "2d",
        content["inference_allowed_mirroring_axes"],
        storage="float16",
    )
    assert not equal(full, half)
    tuned = {"float32": full, "float16": half}
    for case, stem in zip(POOL, tiny_cohort.stems, strict=True):
        data, _, properties = preprocessing.load_preprocessed(stem)
        reference = label_maps.read_label_map(tiny_cohort.label(case))
        scores = {}
        for storage, checkpoint in tuned.items():
            model = checkpoints.load_model(checkpoint, CPU)
            logits = sliding_window.predict_logits(model, data)
            predicted = label_maps.to_label_map(model, logits, properties)
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
        with exclusion.only_training_in(tmp_path):
            entered.set()

    thread = threading.Thread(target=second)
    with exclusion.only_training_in(tmp_path):
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    thread.join()
    assert "Waiting for another training" in capsys.readouterr().err


def test_start_weights_of_another_network(
    tiny_cohort: TinyCohort, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained, weights_only=True)
    stored = content["network_weights"]
    head = next(name for name in stored if ".seg_layers." in name)
    stored[head] = stored[head][:2]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit"):
        train(tiny_cohort, tmp_path / "a", start_from=tmp_path / "other.pth")
    del stored[head]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit"):
        train(tiny_cohort, tmp_path / "a", start_from=tmp_path / "other.pth")


def test_a_training_that_diverges_says_so(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="lower initial_lr"):
        train(tiny_cohort, tmp_path, schedule=SCHEDULE | {"initial_lr": 1e30})
    assert not (tmp_path / "fold_all" / "checkpoint_final.pth").exists()


def test_a_missing_case_is_named(tiny_cohort: TinyCohort, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(tiny_cohort, tmp_path, cases=[tmp_path / "nowhere"])


def test_loading_processes_by_threads_and_device() -> None:
    cuda = torch.device("cuda")
    assert [run._suitable_workers(n, CPU) for n in (1, 2, 4, 16)] == [0, 0, 0, 1]
    assert [run._suitable_workers(n, cuda) for n in (1, 2, 4, 16)] == [0, 0, 2, 14]


# What a GPU does, on the CPU


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are made all samples at once, and losses are fetched now and then."""
    monkeypatch.setattr(Iterations, "_can_make_on_device", lambda _: True)
    step = CaseTrainer.train_step

    def train_step(self: CaseTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        return {"loss": torch.tensor(float(step(self, batch)["loss"]))}

    monkeypatch.setattr(CaseTrainer, "train_step", train_step)


@pytest.mark.usefixtures("as_on_a_device")
def test_batches_made_on_the_device_train_as_well(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"epochs": 3, "iterations_per_epoch": 10, "initial_lr": 0.01}
    first = train(tiny_cohort, tmp_path / "a", schedule=schedule)
    log = capsys.readouterr().out
    assert "batches made on the device" in log
    losses = [float(value) for value in re.findall(r"loss (-?[\d.]+)", log)]
    assert losses[2] < losses[0] - 0.4
    again = train(tiny_cohort, tmp_path / "b", schedule=schedule, workers=2)
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.usefixtures("as_on_a_device")
def test_a_loss_that_is_looked_at_late_is_named_rightly(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = CaseTrainer.train_step
    done = 0

    def train_step(self: CaseTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal done
        done += 1
        outcome: dict[str, Any] = step(self, batch)
        return outcome if done < 3 else {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(CaseTrainer, "train_step", train_step)
    with pytest.raises(UserError, match="nan in iteration 2"):
        train(tiny_cohort, tmp_path, schedule=SCHEDULE | {"iterations_per_epoch": 5})
    assert done == 5  # nobody waited for the device in the middle of an epoch


def test_only_long_trainings_on_a_gpu_are_compiled(tiny_cohort: TinyCohort) -> None:
    trainer = CaseTrainer(
        read_json(tiny_cohort.plans), "2d", "all", read_json(tiny_cohort.dataset), CPU
    )
    for wanted in (True, "auto"):
        assert not trainer.compiles(wanted, 10**9)
    trainer.device = torch.device("cuda")
    assert trainer.compiles("auto", 10**9)
    assert not trainer.compiles("auto", 100)
    assert trainer.compiles(True, 100)
    assert not trainer.compiles(False, 10**9)


def test_a_gpu_without_bfloat16_is_named(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 2080 Ti")
    with pytest.raises(UserError, match=r"RTX 2080 Ti has no bfloat16.*float16"):
        train(tiny_cohort, tmp_path, device="cuda", precision="bfloat16")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's iteration whose compiler fails, as without a C compiler."""
    initialize, step = CaseTrainer.initialize, CaseTrainer.train_step
    compilers: dict[CaseTrainer, str | None] = {}

    def initialize_and_note(self: CaseTrainer, *given: Any) -> None:
        compilers[self] = given[-1]
        initialize(self, *given)

    def train_step(self: CaseTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        if compilers[self] is not None:
            raise RuntimeError(
                "backend='inductor' raised:\nFailed to find C compiler.\nSet CC."
            )
        assert len(multiprocessing.active_children()) <= 1  # those of the failed one?
        outcome: dict[str, Any] = step(self, batch)
        return outcome

    monkeypatch.setattr(CaseTrainer, "initialize", initialize_and_note)
    monkeypatch.setattr(CaseTrainer, "train_step", train_step)
    monkeypatch.setattr(CaseTrainer, "compiles", lambda _, wanted, __: bool(wanted))


@pytest.mark.usefixtures("no_compiler")
def test_a_training_goes_on_without_a_compiler(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(tiny_cohort, tmp_path / "plain", workers=1)
    capsys.readouterr()
    found = train(tiny_cohort, tmp_path / "auto", workers=1, compile_network="auto")
    said = capsys.readouterr().out
    assert "could not be compiled (Failed to find C compiler.): going on" in said
    assert equal(plain, found)
    with pytest.raises(UserError, match=r"C compiler.*training\.compile to auto"):
        train(tiny_cohort, tmp_path / "asked", compile_network=True)


def test_an_error_that_is_not_the_compilers_is_raised(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_step(self: CaseTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(CaseTrainer, "train_step", train_step)
    monkeypatch.setattr(CaseTrainer, "compiles", lambda _, wanted, __: bool(wanted))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(tiny_cohort, tmp_path, compile_network="auto")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        UserError("A process that prepared batches was killed (pid 7)."),
    ],
)
def test_what_is_not_the_compilers_is_not_tried_again(
    tiny_cohort: TinyCohort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    steps = []

    def train_step(self: CaseTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        steps.append(batch)
        raise error

    monkeypatch.setattr(CaseTrainer, "train_step", train_step)
    monkeypatch.setattr(CaseTrainer, "compiles", lambda _, wanted, __: bool(wanted))
    with pytest.raises(type(error), match=r"out of memory|pid 7"):
        train(tiny_cohort, tmp_path, compile_network="auto")
    assert len(steps) == 1
