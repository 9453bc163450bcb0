"""The iterations of a training: batches in, checkpoints out, losses looked at.

They can be broken off at any moment and taken up from the last checkpoint, in the
middle of an epoch if need be, with the result that they would have had.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from casesim.errors import UserError
from casesim.nnunet import checkpoints
from casesim.processes import stall
from casesim.processes.stopping import Stop
from casesim.training.batches import TRAINING, VALIDATION, iterate
from casesim.training.cases import Cases
from casesim.training.device_batches import DeviceBatches
from casesim.training.divergence import name_cases
from casesim.training.draws import Draws, can_draw
from casesim.training.trainer import CaseTrainer

# With mixed precision a loss can overflow now and then; the gradient scaler skips the
# step.
_TOLERATED_OVERFLOWS = 10
# They draw what is random, which takes a core 20 ms for a hundred samples.
_DRAWING_PROCESSES = 3
# Each look at a loss waits for the device.
_LOSSES_AT_A_TIME = 50

# Between two words about a long epoch.
_SECONDS_BETWEEN_WORDS = 300.0


class Iterations:
    """A training's iterations from wherever it stands to the end.

    `iteration` is how many are done; `history` has an entry for each epoch.
    """

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
            # A number, not the tensor on the device, whose value changes.
            "lr": float(trainer.optimizer.param_groups[0]["lr"]),
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
