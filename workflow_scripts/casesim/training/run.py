"""One training from wherever it stands to its end, in a model folder.

It can be killed at any moment and goes on from its last checkpoint, in the middle of an
epoch if need be, with the result that it would have had. Unlike nnU-Net's it has no
validation, picture and best checkpoint in every epoch.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from casesim.errors import UserError
from casesim.nnunet import checkpoints, compiling, planning
from casesim.nnunet.files import PathLike, read_json
from casesim.processes import stall
from casesim.processes.stopping import Stop
from casesim.training.batches import TRAINING, VALIDATION, iterate
from casesim.training.cases import Cases
from casesim.training.device_batches import DeviceBatches
from casesim.training.divergence import name_cases
from casesim.training.draws import Draws, can_draw
from casesim.training.exclusion import only_training_in
from casesim.training.keeping import Keeper
from casesim.training.progress import plot_progress
from casesim.training.trainer import CaseTrainer


class FirstStage(Protocol):
    """A cascade's first stage, finished; see `cascade.FirstStage`."""

    def digest(self) -> str: ...

    def predict(
        self, shapes: Mapping[str, Sequence[int]], device: torch.device
    ) -> dict[str, Path]: ...


# Part of what a checkpoint must agree with; raise it when the same inputs train
# differently.
_VERSION = 1
# With mixed precision a loss can overflow now and then; the gradient scaler skips the
# step.
_TOLERATED_OVERFLOWS = 10
# They draw what is random, which takes a core 20 ms for a hundred samples.
_DRAWING_PROCESSES = 3
# Each look at a loss waits for the device.
_LOSSES_AT_A_TIME = 50

# Between two words about a long epoch.
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
    precision: str = "float16",
    compile_network: bool | str = False,
    compiler_cache: PathLike | None = None,
    first_stage: FirstStage | None = None,
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

    On a GPU, `precision` is that of mixed precision, float16 or bfloat16, and
    `compile_network` says whether the iteration is compiled: `auto` where the training
    is long enough to earn it. What the compiler makes is kept in `compiler_cache`.
    `first_stage` segments the cases for the second stage of a cascade.

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
    if compiler_cache is not None:
        compiling.use_compiler_cache(compiler_cache)
    if workers is None:
        workers = _suitable_workers(threads, device)
    torch.set_num_threads(max(1, threads - workers))
    latest = Path(out_folder, "fold_all", "checkpoint_latest.pth")
    latest.parent.mkdir(parents=True, exist_ok=True)
    with only_training_in(latest.parent):
        for remnant in latest.parent.glob(
            ".tmp-*"
        ):  # of a training killed while writing
            remnant.unlink()

        plans_json, dataset_json = read_json(plans), read_json(dataset)
        planning.load_plans(plans, configuration)
        data = Cases(cases, memory_mb, in_cascade=first_stage is not None)

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
                precision,
                first_stage,
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
        if first_stage is not None:
            data.add_previous(first_stage.predict(data.shapes, device))
        trainer = CaseTrainer(plans_json, configuration, "all", dataset_json, device)
        weights = None
        if start_from is not None:
            weights = checkpoints.read_checkpoint(start_from)["network_weights"]
        if compile_network == "auto":
            iterations = schedule["epochs"] * schedule["iterations_per_epoch"]
            compile_network = trainer.earns_compiling(iterations)
        try:
            trainer.initialize(
                schedule,
                seed,
                weights,
                precision,
                "inductor" if compile_network else None,
            )
        except ValueError as error:
            raise UserError(
                f"The weights in {start_from} do not fit {plans} ({error}). Delete "
                "the model that they are from, so that it is trained again under these "
                "plans."
            ) from None

        run = _Run(trainer, data, seed, workers, validate_every, bool(compile_network))
        if latest.exists():
            run.resume(latest, fingerprint())
        print(
            f"{len(data.identifiers)} cases "
            f"{'in memory' if data.in_memory else 'on disk'}, {trainer.num_epochs} "
            f"epochs of {trainer.num_iterations_per_epoch} iterations, batches of "
            f"{trainer.batch_size}, {device}, {torch.get_num_threads()} threads, "
            f"{run.workers} loading processes{run.remark()}; ready after "
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
    precision: str,
    first_stage: FirstStage | None,
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
        **({} if precision == "float16" else {"precision": precision}),
        **({} if first_stage is None else {"first_stage": first_stage.digest()}),
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
        compiled: bool,
    ) -> None:
        self.trainer = trainer
        self.cases = cases
        self.seed = seed
        self.workers = workers
        self.validate_every = validate_every
        self.iteration = 0
        self.losses: list[float] = []  # of the epoch under way
        self._last_batch: dict[str, Any] = {}
        self._waiting: list[Any] = []  # losses that are still on the device
        self._compiled = compiled
        self._made_on_device = self._can_make_on_device()
        if self._made_on_device:
            self.workers = min(workers, _DRAWING_PROCESSES)
        self.history: list[dict[str, Any]] = []  # one entry for each epoch done
        self._overflows = 0

    def _can_make_on_device(self) -> bool:
        trainer = self.trainer
        return (
            trainer.device.type == "cuda"
            and DeviceBatches.fits(self.cases, trainer.device)
            and can_draw(trainer.batches(self.cases, self.seed, TRAINING).loader)
        )

    def remark(self) -> str:
        """What is special about how it computes, for the log."""
        remarks = [
            *([", compiled"] if self._compiled else []),
            *([", batches made on the device"] if self._made_on_device else []),
        ]
        return "".join(remarks)

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
        self.trainer.load_optimizer(optimizer)
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
                "optimizer_state": self.trainer.optimizer_state(),
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
        indices = range(self.iteration, total)
        stop = Stop()
        trainer.begin_epoch(self.iteration // length)
        trainer.network.train()
        saved = started = said = time.monotonic()
        with stop:
            # No name for the iterator: its processes end when it is dropped, which an
            # exception that remembers this frame would put off.
            for batch in self._batches(indices):
                self._step(batch)
                stall.progress()
                at_border = self.iteration % length == 0
                if at_border:
                    self._look_at_losses()
                    epoch = self.iteration // length
                    self._end_epoch(epoch - 1, time.monotonic() - started)
                    trainer.begin_epoch(epoch)
                    started = said = time.monotonic()
                elif time.monotonic() - said >= _SECONDS_BETWEEN_WORDS:
                    said = time.monotonic()
                    print(f"iteration {self.iteration} of {total}", flush=True)
                due = at_border
                if checkpoint_minutes > 0:
                    due = time.monotonic() - saved >= 60 * checkpoint_minutes
                if stop.signal or (due and self.iteration < total):
                    self._look_at_losses()
                    self.save(path, fingerprint())
                    saved = time.monotonic()
                if stop.signal:
                    print(f"stopped by signal {stop.signal}; run again to go on")
                    raise SystemExit(128 + stop.signal)

    def _batches(self, indices: range) -> Iterator[dict[str, Any]]:
        """The batches, made on the device where that can be done."""
        trainer = self.trainer
        batches = trainer.batches(self.cases, self.seed, TRAINING)
        if self._made_on_device:
            draws = Draws(batches.loader, self.seed, TRAINING)
            drawn = iterate(draws, indices, self.workers, trainer.device)
            return trainer.device_batches(self.cases, batches).make(drawn)
        return iterate(batches, indices, self.workers, trainer.device)

    def _step(self, batch: dict[str, Any]) -> None:
        self._waiting.append(self.trainer.train_step(batch)["loss"])
        self._last_batch = batch
        self.iteration += 1
        on_device = isinstance(self._waiting[0], torch.Tensor)
        if not on_device or len(self._waiting) >= _LOSSES_AT_A_TIME:
            self._look_at_losses()

    def _look_at_losses(self) -> None:
        """Fetch losses from the device, and end a training that diverges."""
        tolerated = 0 if self.trainer.grad_scaler is None else _TOLERATED_OVERFLOWS
        values = self._waiting
        if values and isinstance(values[0], torch.Tensor):
            values = torch.stack(values).tolist()
        self._waiting = []
        for number, value in enumerate(values, start=self.iteration - len(values)):
            loss = float(value)
            self._overflows = 0 if math.isfinite(loss) else self._overflows + 1
            if self._overflows > tolerated:
                # Of a loss that is looked at late, the batch is no longer at hand.
                is_last = number == self.iteration - 1
                about = f" {name_cases(self._last_batch)}" if is_last else ""
                raise UserError(
                    f"The loss is {loss} in iteration {number}: the training has "
                    f"diverged.{about} Set a lower initial_lr (it is "
                    f"{self.trainer.initial_lr}), unless a case is to blame."
                )
            self.losses.append(loss)

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
