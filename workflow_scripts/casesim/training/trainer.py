"""nnU-Net's trainer with our schedule, start weights, seeds and resume.

Network, losses, deep supervision, optimiser, learning-rate decay and augmentation are
those of `nnUNetTrainer`. What differs:

* Batch i is a function of (seed, i) alone, whatever the number of loading processes and
  wherever a training was interrupted; nnU-Net seeds nothing.
* A training can start from *all* weights of another one, segmentation head included;
  nnU-Net's `-pretrained_weights` drops the head without saying so.
* A training can be killed at any moment and goes on from its last checkpoint, in the
  middle of an epoch if need be, with the result that it would have had.
* No validation, pictures and best checkpoints in every epoch.

Importing this module imports nnU-Net's trainer, which takes seconds.
"""

import fcntl
import hashlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.utils.data import DataLoader, Dataset

from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.nnunet import nnunet
from casesim.nnunet.nnunet import PathLike
from casesim.processes.stopping import Stop

# Part of what a checkpoint must agree with; raise it when the same inputs train
# differently.
_VERSION = 1

# Streams of random numbers.
_WEIGHTS, _TRAINING, _VALIDATION = range(3)

# With mixed precision a loss can overflow now and then; the gradient scaler skips the
# step.
_TOLERATED_OVERFLOWS = 10


class Cases(nnUNetBaseDataset):
    """Preprocessed cases from any folder, held in memory when they fit.

    nnU-Net's own data set wants all cases in one folder, and opens the files of a case
    each time a sample of it is drawn. Identifiers are file names, sorted, so that the
    order of `stems` (paths without `.b2nd`) does not matter.
    """

    def __init__(self, stems: Sequence[PathLike], memory_mb: float) -> None:
        # Without the parent's constructor, which lists a folder.
        self._stems = {Path(stem).name: Path(stem) for stem in stems}
        if len(self._stems) != len(stems):
            raise ValueError("two cases have the same file name")
        self.identifiers = sorted(self._stems)
        self._properties = {
            name: nnunet.load_properties(stem) for name, stem in self._stems.items()
        }
        size = sum(
            math.prod(array.shape) * array.dtype.itemsize
            for stem in self._stems.values()
            for array in nnunet.open_preprocessed(stem)
        )
        self._arrays: dict[str, tuple[Any, Any]] = {}
        self.in_memory = size <= memory_mb * 1e6
        if self.in_memory:
            for name, stem in self._stems.items():
                data, seg, _ = nnunet.load_preprocessed(stem, with_seg=True)
                self._arrays[name] = (data, seg)

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        """Data (channel, ...), segmentation (1, ...), no previous stage, properties."""
        data, seg = self._arrays.get(identifier) or nnunet.open_preprocessed(
            self._stems[identifier]
        )
        return data, seg, None, self._properties[identifier]

    @staticmethod
    def save_case(*_: Any) -> None:
        raise NotImplementedError("preprocessed cases are written by casesim.nnunet")

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        raise NotImplementedError("the cases are given, not found in a folder")

    def digest(self) -> str:
        """SHA-256 over the names and files of all cases."""
        total = hashlib.sha256()
        for name in self.identifiers:
            for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
                with Path(f"{self._stems[name]}{suffix}").open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                total.update(f"{name}{suffix} {content}\n".encode())
        return total.hexdigest()


class Batches(Dataset[dict[str, Any]]):
    """The batches of one training: batch i is a function of (seed, stream, i) alone."""

    def __init__(self, loader: nnUNetDataLoader, seed: int, stream: int) -> None:
        self.loader = loader
        self._seed = (seed, stream)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`data` (b, channel, ...), `target` one for each resolution, `keys` (b)."""
        seed_all(*self._seed, index)
        return self.loader.generate_train_batch()


def iterate(
    batches: Batches, indices: range, workers: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """The batches in order, prepared by `workers` processes or, with 0, by this one.

    PyTorch's loader rather than batchgenerators', whose processes outlive a training
    that is killed, and whose training waits for ever when one of them is killed.
    """
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_training,
            # Not all systems can fork; those that spawn get a copy of the cases.
            multiprocessing_context=(
                "fork" if workers and sys.platform == "linux" else None
            ),
        )
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_training(_: int) -> None:
    """Let a loading process outlive a signal to all, until the training has saved.

    It ends when the training ends it, and half a minute after SIGTERM at the latest.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def seed_all(*entropy: int) -> None:
    """Seed every source of random numbers that nnU-Net draws from on the CPU."""
    numbers = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    # Not torch.manual_seed, which also reseeds each GPU, for every batch.
    torch.default_generator.manual_seed(int(numbers[2]))


class CaseTrainer(nnUNetTrainer):
    """`nnUNetTrainer` on given cases, writing no file by itself.

    nnU-Net inspects the constructor, so that its arguments have to keep their names.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        # The parent's constructor wants a results folder and makes folders below it.
        with (
            tempfile.TemporaryDirectory(prefix="trainer-") as folder,
            nnunet.environment(nnUNet_results=folder, nnUNet_compile="f"),
        ):
            super().__init__(
                {**plans, "continue_training": False},
                configuration,
                fold,
                dataset_json,
                device,
            )

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Print: the job's log is where standard output goes."""
        print(*args, flush=True)

    def _do_i_compile(self) -> bool:
        # Compiling costs minutes, which a fine-tune of minutes does not earn back.
        return False

    def initialize(
        self, schedule: Mapping[str, Any], seed: int, weights: Mapping[str, Any] | None
    ) -> None:
        """Build network, optimiser and loss.

        The network starts from `weights`, every one of them, or from nnU-Net's
        initialisation with the seed. Raises ValueError when `weights` do not fit.
        """
        self.num_epochs = schedule["epochs"]
        self.num_iterations_per_epoch = schedule["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self.initial_lr = schedule["initial_lr"]
        self._set_batch_size_and_oversample()
        seed_all(seed, _WEIGHTS)
        self.network = nnunet.build_network(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            deep_supervision=self.enable_deep_supervision,
            initialise=weights is None,
        )
        if weights is not None:
            try:
                self.network.load_state_dict(weights, strict=True)
            except RuntimeError as error:
                raise ValueError(str(error)) from None
        self.network.to(self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.loss = self._build_loss()
        self.was_initialized = True

    def batches(self, cases: Cases, seed: int, stream: int) -> Batches:
        """nnU-Net's sampling and augmentation (`nnUNetTrainer.get_dataloaders`)."""
        patch_size = self.configuration_manager.patch_size
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        labels = {
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": (
                self.label_manager.foreground_regions
                if self.label_manager.has_regions
                else None
            ),
            "ignore_label": self.label_manager.ignore_label,
        }
        if stream == _TRAINING:
            transforms = self.get_training_transforms(
                patch_size,
                rotation,
                scales,
                mirror_axes,
                dummy_2d,
                use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
                **labels,
            )
            _make_repeatable(transforms)
        else:
            transforms = self.get_validation_transforms(scales, **labels)
            initial_patch_size = patch_size
        loader = nnUNetDataLoader(
            cases,
            self.batch_size,
            initial_patch_size,
            patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
        )
        return Batches(loader, seed, stream)

    def pseudo_dice(self, batches: Iterable[dict[str, Any]]) -> list[float]:
        """nnU-Net's pseudo-Dice: voxels of random patches pooled, a value per label.

        NaN for a label that is neither in the patches nor predicted.
        """
        self.network.eval()
        with torch.no_grad():
            outcomes = [self.validation_step(batch) for batch in batches]
        self.network.train()
        names = ("tp_hard", "fp_hard", "fn_hard")
        counts = [sum(outcome[name] for outcome in outcomes) for name in names]
        tp, fp, fn = counts
        with np.errstate(invalid="ignore"):
            return [float(value) for value in 2 * tp / (2 * tp + fp + fn)]


def _make_repeatable(transform: BasicTransform) -> None:
    """Keep blurring from measuring, at run time, which of two algorithms is the faster.

    They differ in the last bits, so that a batch would depend on how busy the machine
    was.
    """
    if getattr(transform, "benchmark", False):
        transform.benchmark = False
    for part in getattr(transform, "transforms", []):
        _make_repeatable(part)
    inner = getattr(transform, "transform", None)
    if inner is not None:
        _make_repeatable(inner)


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

    Writes what `nnunet.save_model` does, and progress.png. While the training runs,
    fold_all/checkpoint_latest.pth is what an interrupted one goes on from when it is
    called again with the same cases, plans, schedule, seed and start weights; any
    other, or a damaged one, is ignored. The same arguments and number of threads give
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

        plans_json, dataset_json = nnunet.read_json(plans), nnunet.read_json(dataset)
        nnunet.load_plans(plans, configuration)
        data = Cases(cases, memory_mb)
        trainer = CaseTrainer(plans_json, configuration, "all", dataset_json, device)
        weights = None
        if start_from is not None:
            weights = nnunet.read_checkpoint(start_from)["network_weights"]
        try:
            trainer.initialize(schedule, seed, weights)
        except ValueError as error:
            raise UserError(
                f"The weights in {start_from} do not fit {plans} ({error}). Delete "
                "the model that they are from, so that it is trained again under these "
                "plans."
            ) from None

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
        final = nnunet.save_model(
            out_folder,
            trainer.network.state_dict(),
            plans_json,
            dataset_json,
            configuration,
            trainer.inference_allowed_mirroring_axes,
            storage,
        )
        _plot_progress(run.history, Path(out_folder, "progress.png"))
        latest.unlink(missing_ok=True)
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
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Waiting for another training in {folder}.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


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
        "labels": dataset["labels"],
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
            state = nnunet.read_checkpoint(path)
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
        nnunet.save_checkpoint(
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
        batches = trainer.batches(self.cases, self.seed, _TRAINING)
        indices = range(self.iteration, total)
        stop = Stop()
        trainer.lr_scheduler.step(self.iteration // length)
        trainer.network.train()
        saved = started = time.monotonic()
        with stop:
            # No name for the iterator: its processes end when it is dropped, which an
            # exception that remembers this frame would put off.
            for batch in iterate(batches, indices, self.workers, trainer.device):
                self._step(batch)
                at_border = self.iteration % length == 0
                if at_border:
                    epoch = self.iteration // length
                    self._end_epoch(epoch - 1, time.monotonic() - started)
                    trainer.lr_scheduler.step(epoch)
                    started = time.monotonic()
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
                f"diverged. Set a lower initial_lr (it is {self.trainer.initial_lr})."
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
            batches = trainer.batches(self.cases, self.seed, _VALIDATION)
            indices = range(epoch * number, (epoch + 1) * number)
            entry["pseudo_dice"] = trainer.pseudo_dice(
                iterate(batches, indices, 0, trainer.device)
            )
            values = " ".join(f"{value:.3f}" for value in entry["pseudo_dice"])
            line += f", pseudo-Dice of the training cases {values}"
        self.losses = []
        self.history.append(entry)
        print(line, flush=True)


def _plot_progress(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and pseudo-Dice by epoch."""
    # Without pyplot and seaborn, whose import takes longer than the picture.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="training loss")
    epochs = np.arange(1, len(history) + 1)
    axes.plot(epochs, [entry["loss"] for entry in history], color="tab:blue")
    values = [(n, e["pseudo_dice"]) for n, e in zip(epochs, history, strict=True)]
    values = [(n, dice) for n, dice in values if dice is not None]
    if values:
        right = axes.twinx()
        right.set(ylabel="pseudo-Dice of the training cases", ylim=(0, 1))
        right.plot(*zip(*values, strict=True), marker=".", linestyle=":")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
