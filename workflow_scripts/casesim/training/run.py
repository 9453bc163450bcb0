"""One training from wherever it stands to its end, in a model folder.

It can be killed at any moment and goes on from its last checkpoint, in the middle of an
epoch if need be, with the result that it would have had. Unlike nnU-Net's it has no
validation, picture and best checkpoint in every epoch.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from casesim.errors import UserError
from casesim.nnunet import checkpoints, compiling, planning
from casesim.nnunet.files import PathLike, read_json, write_json
from casesim.training.cases import Cases
from casesim.training.exclusion import only_training_in
from casesim.training.iterations import Iterations
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
_VERSION = 2


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
    is long enough to earn it and a compiler works. What that makes is kept in
    `compiler_cache`.
    `first_stage` segments the cases for the second stage of a cascade.

    Writes what `save_model` does, and the epochs as progress.json (loss, learning rate,
    seconds, pseudo-Dice) and as progress.png. While the training runs,
    fold_all/checkpoint_latest.pth is what an interrupted one goes on from when it is
    called again with the same cases, plans, schedule, seed and start weights; any
    other, or a damaged one, is ignored. A finished model of the same arguments is taken
    as it is (`keeping`). The same arguments and number of threads give
    the same weights bit for bit on a CPU.

    On SIGTERM or SIGINT (a time limit, an interrupt) the training writes that
    checkpoint after the current iteration and exits with 128 + the signal's number.
    Raises `UserError` when a file is missing or damaged, when `start_from` does not fit
    the plans, when the GPU lacks `precision`, when `compile_network` is True and fails,
    when a loading process is killed, and when the loss is no longer finite.
    """
    began = time.monotonic()
    device = torch.device(device)
    if compiler_cache is not None:
        compiling.use_compiler_cache(compiler_cache)
    if precision == "bfloat16":
        _check_bfloat16(device)
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
            # What changes no weight may be another: which number a region gets.
            write_json(Path(out_folder, "dataset.json"), dataset_json)
            return final
        if first_stage is not None:
            data.add_previous(first_stage.predict(data.shapes, device))
        trainer = CaseTrainer(plans_json, configuration, "all", dataset_json, device)
        weights = None
        if start_from is not None:
            weights = checkpoints.read_checkpoint(start_from)["network_weights"]
        compiled = trainer.compiles(
            compile_network, schedule["epochs"] * schedule["iterations_per_epoch"]
        )

        def begin(compiled: bool) -> Iterations:
            try:
                trainer.initialize(
                    schedule, seed, weights, precision, "inductor" if compiled else None
                )
            except ValueError as error:
                raise UserError(
                    f"The weights in {start_from} do not fit {plans} ({error}). Delete "
                    "the model that they are from, so that it is trained again under "
                    "these plans."
                ) from None
            run = Iterations(trainer, data, seed, workers, validate_every, compiled)
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
            return run

        run = begin(compiled)
        done = run.iteration
        failure = None
        try:
            run.finish(latest, fingerprint, checkpoint_minutes)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            # Before the first iteration it is the compiler's, or comes again without.
            if not compiled or run.iteration > done:
                raise
            failure = compiling.failure(error)
        # Not in the handler: an error of the second try has another cause.
        if failure:
            if compile_network != "auto":
                raise failure.refusal("training.compile")
            print(failure.going_on(), flush=True)
            run = begin(False)
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
        write_json(Path(out_folder, "progress.json"), run.history)
        plot_progress(run.history, Path(out_folder, "progress.png"))
        latest.unlink(missing_ok=True)
        keeper.keep(f"{fingerprint()} {storage}")
        print(f"model written in {time.monotonic() - began:.2f} s", flush=True)
        return final


def _check_bfloat16(device: torch.device) -> None:
    """Raise `UserError` for a GPU that would have to imitate it, slowly."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(
        including_emulation=False
    ):
        raise UserError(
            f"The {torch.cuda.get_device_name(device)} has no bfloat16. Set "
            "training.precision to float16."
        )


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
