"""One training from wherever it stands to its end, in a model folder.

It can be killed at any moment and goes on from its last checkpoint, in the middle of an
epoch if need be, with the result that it would have had. Unlike nnU-Net's it has no
validation, picture and best checkpoint in every epoch.
"""

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from casesim.errors import UserError
from casesim.nnunet import checkpoints, planning
from casesim.nnunet.files import PathLike, read_json
from casesim.processes import stall
from casesim.processes.stopping import Stop
from casesim.processes.waiting import Wait
from casesim.training.batches import TRAINING, VALIDATION, iterate
from casesim.training.cases import Cases
from casesim.training.divergence import name_cases
from casesim.training.keeping import Keeper
from casesim.training.progress import plot_progress
from casesim.training.trainer import CaseTrainer

# Part of what a checkpoint must agree with; raise it when the same inputs train
# differently.
_VERSION = 1
# With mixed precision a loss can overflow now and then; the gradient scaler skips the
# step.
_TOLERATED_OVERFLOWS = 10

# For another training in the same folder; between two words about a long epoch.
_LONGEST_WAIT = 24 * 3600.0
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_WORDS = 300.0


def train(
    cases: Sequence[PathLike],
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    out_folder: PathLike,
    schedule: Mapping[str, Any],
    seed: int,
    threads: int,
    device: str | torch.device,
    start_from: PathLike | None = None,
    checkpoint_minutes: float = 5,
    validate_every: int = 0,
    storage: str = "float32",
    memory_mb: float = 8000,
    workers: int | None = None,
) -> Path:
    """Train on `cases` and write a model folder; returns its final checkpoint.

    Parameters: `cases` are preprocessed cases (paths without `.b2nd`), in any order.
    `schedule` has `epochs`, `iterations_per_epoch` and `initial_lr`. `start_from` is a
    checkpoint whose weights all go into the start, segmentation head included.
    `checkpoint_minutes` is the time between checkpoints (0: after each epoch),
    `validate_every` the number of epochs between pseudo-Dice values of the training
    cases (0: none). `storage` float16 halves the stored model. Cases that need more
    than `memory_mb` are read from disk all the time. `workers` is the number of loading
    processes, by default what suits `threads` and the device.

    Writes what `save_model` does, and progress.png. While the training runs,
    fold_all/checkpoint_latest.pth is what an interrupted one goes on from when it is
    called again with the same cases, plans, schedule, seed and start weights; any
    other, or a damaged one, is ignored. A finished model of the same arguments is taken
    as it is (`keeping`). The same arguments and number of threads give
    the same weights bit for bit on a CPU.

    On SIGTERM or SIGINT (a time limit, an interrupt) the training writes that
    checkpoint after the current iteration and exits with 128 + the signal's number.
    Raises `UserError` when a file is missing or damaged, when `start_from` does not fit
    the plans, and when the loss is no longer finite.
    """
    began = time.monotonic()
    device = torch.device(device)
    if workers is None:
        workers = _suitable_workers(threads, device)
    torch.set_num_threads(max(1, threads - workers))
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    latest = Path(out_folder, "fold_all", "checkpoint_latest.pth")
    latest.parent.mkdir(parents=True, exist_ok=True)
    with _only_training_in(latest.parent):
        for remnant in latest.parent.glob(
            ".tmp-*"
        ):  # of a training killed while writing
            remnant.unlink()

        plans_json, dataset_json = read_json(plans), read_json(dataset)
        planning.load_plans(plans, configuration)
        data = Cases(cases, memory_mb)

        @cache
        def fingerprint() -> str:
            return _fingerprint(
                data,
                plans_json,
                dataset_json,
                configuration,
                schedule,
                seed,
                start_from,
            )

        final = latest.with_name("checkpoint_final.pth")
        model = [final, *(Path(out_folder, f"{n}.json") for n in ("plans", "dataset"))]
        keeper = Keeper(latest.parent, model)
        if keeper.restore(lambda: f"{fingerprint()} {storage}"):
            print(
                "A model of these very cases, plans, schedule, seed and start is there "
                "from an earlier run. To train it anew, delete its folder.",
                flush=True,
            )
            return final
        trainer = CaseTrainer(plans_json, configuration, "all", dataset_json, device)
        weights = None
        if start_from is not None:
            weights = checkpoints.read_checkpoint(start_from)["network_weights"]
        try:
            trainer.initialize(schedule, seed, weights)
        except ValueError as error:
            raise UserError(
                f"The weights in {start_from} do not fit {plans} ({error}). Delete "
                "the model that they are from, so that it is trained again under these "
                "plans."
            ) from None

        run = _Run(trainer, data, seed, workers, validate_every)
        if latest.exists():
            run.resume(latest, fingerprint())
        print(
            f"{len(data.identifiers)} cases "
            f"{'in memory' if data.in_memory else 'on disk'}, {trainer.num_epochs} "
            f"epochs of {trainer.num_iterations_per_epoch} iterations, batches of "
            f"{trainer.batch_size}, {device}, {torch.get_num_threads()} threads, "
            f"{workers} loading processes; ready after "
            f"{time.monotonic() - began:.2f} s",
            flush=True,
        )
        run.finish(latest, fingerprint, checkpoint_minutes)
        began = time.monotonic()
        checkpoints.save_model(
            out_folder,
            trainer.network.state_dict(),
            plans_json,
            dataset_json,
            configuration,
            trainer.inference_allowed_mirroring_axes,
            storage,
        )
        plot_progress(run.history, Path(out_folder, "progress.png"))
        latest.unlink(missing_ok=True)
        keeper.keep(f"{fingerprint()} {storage}")
        print(f"model written in {time.monotonic() - began:.2f} s", flush=True)
        return final


@contextmanager
def _only_training_in(folder: Path) -> Iterator[None]:
    """Wait until no other training of this host writes to a folder; keep others out.

    One whose run was killed may still be about to leave its checkpoint there. Where
    folders cannot be locked (NFS), nothing is waited for.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            wait = None
            while not _locked(lock):
                wait = wait or Wait(
                    f"another training in {folder}",
                    _LONGEST_WAIT,
                    "It belongs to another run: wait for its end, or stop it.",
                    lock=str(folder),
                )
                wait.look()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _suitable_workers(threads: int, device: torch.device) -> int:
    """Loading processes beside the one that computes.

    A GPU wants as many as there are. On a CPU a batch takes a twentieth of the time to
    prepare that the network takes on one core: worth a core from about eight on.
    """
    if device.type == "cuda":
        return max(0, threads - 2)
    return 1 if threads >= 8 else 0


def _fingerprint(
    data: Cases,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    schedule: Mapping[str, Any],
    seed: int,
    start_from: PathLike | None,
) -> str:
    """Everything that the weights depend on, in one hexadecimal number."""
    start = None
    if start_from is not None:
        start = hashlib.sha256(Path(start_from).read_bytes()).hexdigest()
    content = {
        "version": _VERSION,
        "cases": data.digest(),
        "plans": plans,
        # In their order, which is that of the outputs for regions.
        "labels": list(dataset["labels"].items()),
        "channels": dataset["channel_names"],
        "configuration": configuration,
        "schedule": {
            key: schedule[key]
            for key in ("epochs", "iterations_per_epoch", "initial_lr")
        },
        "seed": seed,
        "start": start,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Run:
    """The iterations of one training, from wherever it stands to the end."""

    def __init__(
        self,
        trainer: CaseTrainer,
        cases: Cases,
        seed: int,
        workers: int,
        validate_every: int,
    ) -> None:
        self.trainer = trainer
        self.cases = cases
        self.seed = seed
        self.workers = workers
        self.validate_every = validate_every
        self.iteration = 0
        self.losses: list[float] = []  # of the epoch under way
        self.history: list[dict[str, Any]] = []  # one entry for each epoch done
        self._overflows = 0

    def resume(self, path: Path, fingerprint: str) -> None:
        """Take up the state of a checkpoint, unless it is damaged or of something
        else."""
        try:
            state = checkpoints.read_checkpoint(path)
            if state["fingerprint"] != fingerprint:
                print(f"{path} is of a training with other inputs: starting anew")
                return
            weights, optimizer = state["network_weights"], state["optimizer_state"]
            scaler, iteration = state["grad_scaler_state"], state["iteration"]
            losses, history = state["losses"], state["history"]
        except (UserError, KeyError) as error:
            print(f"{path} cannot be used ({error}): starting anew")
            return
        self.trainer.network.load_state_dict(weights, strict=True)
        self.trainer.optimizer.load_state_dict(optimizer)
        if self.trainer.grad_scaler is not None and scaler is not None:
            self.trainer.grad_scaler.load_state_dict(scaler)
        self.iteration, self.losses, self.history = iteration, losses, history
        print(f"going on from iteration {iteration} of {path}")

    def save(self, path: Path, fingerprint: str) -> None:
        """Write all that `resume` needs."""
        scaler = self.trainer.grad_scaler
        checkpoints.save_checkpoint(
            path,
            {
                "fingerprint": fingerprint,
                "network_weights": self.trainer.network.state_dict(),
                "optimizer_state": self.trainer.optimizer.state_dict(),
                "grad_scaler_state": None if scaler is None else scaler.state_dict(),
                "iteration": self.iteration,
                "losses": self.losses,
                "history": self.history,
            },
        )

    def finish(
        self, path: Path, fingerprint: Callable[[], str], checkpoint_minutes: float
    ) -> None:
        """Train to the end, leaving a checkpoint at `path` from time to time.

        The fingerprint is asked for when the first checkpoint is due: many trainings
        are shorter than that, and need not read their cases once more.
        """
        trainer = self.trainer
        length = trainer.num_iterations_per_epoch
        total = trainer.num_epochs * length
        batches = trainer.batches(self.cases, self.seed, TRAINING)
        indices = range(self.iteration, total)
        stop = Stop()
        trainer.lr_scheduler.step(self.iteration // length)
        trainer.network.train()
        saved = started = said = time.monotonic()
        with stop:
            # No name for the iterator: its processes end when it is dropped, which an
            # exception that remembers this frame would put off.
            for batch in iterate(batches, indices, self.workers, trainer.device):
                self._step(batch)
                stall.progress()
                at_border = self.iteration % length == 0
                if at_border:
                    epoch = self.iteration // length
                    self._end_epoch(epoch - 1, time.monotonic() - started)
                    trainer.lr_scheduler.step(epoch)
                    started = said = time.monotonic()
                elif time.monotonic() - said >= _SECONDS_BETWEEN_WORDS:
                    said = time.monotonic()
                    print(f"iteration {self.iteration} of {total}", flush=True)
                due = at_border
                if checkpoint_minutes > 0:
                    due = time.monotonic() - saved >= 60 * checkpoint_minutes
                if stop.signal or (due and self.iteration < total):
                    self.save(path, fingerprint())
                    saved = time.monotonic()
                if stop.signal:
                    print(f"stopped by signal {stop.signal}; run again to go on")
                    raise SystemExit(128 + stop.signal)

    def _step(self, batch: dict[str, Any]) -> None:
        loss = float(self.trainer.train_step(batch)["loss"])
        tolerated = 0 if self.trainer.grad_scaler is None else _TOLERATED_OVERFLOWS
        self._overflows = 0 if math.isfinite(loss) else self._overflows + 1
        if self._overflows > tolerated:
            raise UserError(
                f"The loss is {loss} in iteration {self.iteration}: the training has "
                f"diverged. {name_cases(batch)} Set a lower initial_lr (it is "
                f"{self.trainer.initial_lr}), unless a case is to blame."
            )
        self.losses.append(loss)
        self.iteration += 1

    def _end_epoch(self, epoch: int, seconds: float) -> None:
        trainer = self.trainer
        entry: dict[str, Any] = {
            "loss": float(np.mean(self.losses)),
            "lr": trainer.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "pseudo_dice": None,
        }
        line = (
            f"epoch {epoch + 1} of {trainer.num_epochs}: loss {entry['loss']:.4f}, "
            f"lr {entry['lr']:.6f}, {seconds:.2f} s"
        )
        if self.validate_every and (epoch + 1) % self.validate_every == 0:
            number = trainer.num_val_iterations_per_epoch
            batches = trainer.batches(self.cases, self.seed, VALIDATION)
            indices = range(epoch * number, (epoch + 1) * number)
            entry["pseudo_dice"] = trainer.pseudo_dice(
                iterate(batches, indices, 0, trainer.device)
            )
            values = " ".join(f"{value:.3f}" for value in entry["pseudo_dice"])
            line += f", pseudo-Dice of the training cases {values}"
        self.losses = []
        self.history.append(entry)
        print(line, flush=True)
