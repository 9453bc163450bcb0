"""How far the losses of a training move when its arithmetic is done in another order.

    python -m benchmarks.drift [--iterations N] [--settings 2d:12 ...]
        [--output docs/benchmarks/drift.md]

A training amplifies what rounding changes. So a compiled iteration can only be asked to
stay as near to one that is not as other changes of nothing but rounding do: of the
layout, of the precision. All start from the same weights and get the same batches.

Without a GPU: a small plan, one thread, and a repetition is equal bit for bit. On a
GPU: nnU-Net's trainer as it ships and not compiled, and ours in several ways, at the
real plans of `--settings`, all at once, so that no time may be read from it.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import setting as common
from benchmarks.iterating import (
    Task,
    Worker,
    dataset,
    initial_weights,
    make_batches,
    plans,
)
from benchmarks.training import describe, distance, worker_options

TASK = Task("2d", 4)
SHAPE = [16, 64, 64]
BATCHES = 8

# What each training is, and which one it is compared with.
PLAIN, HALF = "float32", "bfloat16"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{PLAIN}, again": (PLAIN, {}),
    f"{PLAIN}, channels-last": (PLAIN, {"channels_last": True}),
    f"{PLAIN}, compiled": (PLAIN, {"compiler": "inductor"}),
    HALF: (PLAIN, {"half": True}),
    f"{HALF}, channels-last": (HALF, {"half": True, "channels_last": True}),
    f"{HALF}, compiled": (HALF, {"half": True, "compiler": "inductor"}),
    f"{HALF}, compiled, rounded as written": (
        HALF,
        {"half": True, "compiler": "inductor", "rounded": True},
    ),
}

# On a GPU: which trainer, what of it differs from its default, and which others it is
# compared with.
NNUNET, EAGER, OURS = "nnU-Net", "nnU-Net, not compiled", "ours, not compiled"
ON_GPU: dict[str, tuple[str, dict[str, Any]]] = {
    NNUNET: ("nnunet", {}),
    f"{NNUNET}, again": ("nnunet", {}),
    EAGER: ("nnunet", {"eager": True}),
    OURS: ("ours", {"compiler": None}),
    f"{OURS}, not recorded": ("ours", {"compiler": None, "recorded": False}),
    f"{OURS}, cuDNN's search": ("ours", {"compiler": None, "search": True}),
    "ours, compiled": ("ours", {}),
    "ours, compiled, layout and norm as written": ("ours", {"as_written": True}),
    "ours, compiled, none of the loss": ("ours", {"loss": "none"}),
    "ours, compiled, all of the loss": ("ours", {"loss": "whole"}),
    "ours, compiled, all of the loss, rounded as written": (
        "ours",
        {"loss": "whole", "rounded": True},
    ),
}
COMPARED_WITH = (NNUNET, EAGER, OURS)


class Trainings:
    """Trainings of the same network on the same batches."""

    def __init__(self) -> None:
        import torch

        from casesim.training.trainer import CaseTrainer

        torch.set_num_threads(1)
        made = plans(TASK, SHAPE)
        self._trainer = CaseTrainer(
            made, TASK.configuration, "all", dataset(), torch.device("cpu")
        )
        schedule = {"epochs": 1000, "iterations_per_epoch": 250, "initial_lr": 0.01}
        self._trainer.initialize(schedule, 0, initial_weights(made, TASK))
        self.plan = self._trainer.configuration_manager.configuration
        scales = self._trainer._get_deep_supervision_scales()
        self._batches = make_batches(self.plan, scales, BATCHES)

    def losses(
        self,
        number: int,
        compiler: str | None = None,
        half: bool = False,
        channels_last: bool = False,
        rounded: bool = False,
    ) -> list[float]:
        """Of so many iterations, from the start.

        `rounded`: the compiler keeps every rounding to half precision, where it would
        else go on in single precision from one operation to the next.
        """
        import torch
        from torch._inductor import config

        from casesim.training import step

        config.emulate_precision_casts = rounded
        torch._dynamo.reset()
        network = copy.deepcopy(self._trainer.network)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = step.fused_sgd(
            network.parameters(),
            self._trainer.initial_lr,
            self._trainer.weight_decay,
        )
        iterate = step.Step(
            network,
            copy.deepcopy(self._trainer.loss),  # compiled in place
            optimizer,
            None,
            torch.device("cpu"),
            "bfloat16",
            compiler,
        )
        # `Step` itself leaves half precision to GPUs.
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
        setattr(iterate, "_autocast", lambda: autocast)  # noqa: B010
        found = []
        for i in range(number):
            batch = self._batches[i % BATCHES]
            if channels_last:
                data = batch["data"].contiguous(memory_format=torch.channels_last)
                batch = {**batch, "data": data}
            found.append(iterate(batch))
        return [float(loss) for loss in found]


def report(losses: Mapping[str, Sequence[float]]) -> str:
    """Distances of means of ten losses, and of single ones."""
    rows = []
    for name, (other, _) in VARIANTS.items():
        pairs = zip(losses[name], losses[other], strict=True)
        single = max(abs(first - second) for first, second in pairs)
        means = distance(losses[name], losses[other])
        rows.append([name, other, f"{means:.4f}", f"{single:.4f}"])
    header = ["training", "compared with", "means of ten", "single losses"]
    return common.table(header, rows)


def on_gpu(task: Task, iterations: int, folder: Path) -> dict[str, dict[str, Any]]:
    """What each training of `ON_GPU` says; all run at once."""
    from casesim.nnunet.files import write_json

    write_json(folder / f"{task.name}.json", plans(task))
    workers = {}
    for number, (name, (side, options)) in enumerate(ON_GPU.items()):
        place = folder / f"{task.name}-{number}"
        place.mkdir()
        options = {**worker_options(folder, task, iterations), **options}
        if side == "nnunet":
            # Its compiler keeps its own cache.
            options["cache"] = str(place)
        workers[name] = Worker(side, task, place, options)
    said = {name: worker.read() for name, worker in workers.items()}
    for worker in workers.values():
        worker.end()
    return said


def report_gpu(task: Task, said: Mapping[str, Mapping[str, Any]]) -> str:
    """Distances of means of ten losses from three trainings, and the last loss."""
    losses = {name: found["losses"] for name, found in said.items()}
    rows = [
        [
            name,
            *(f"{distance(own, losses[other]):.4f}" for other in COMPARED_WITH),
            f"{own[1]:.4f}",
            f"{sum(own[-10:]) / 10:.4f}",
            f"{said[name]['scale']:g}",
        ]
        for name, own in losses.items()
    ]
    header = [
        "training",
        *(f"from {other}" for other in COMPARED_WITH),
        "second loss",
        "last ten",
        "scale of the loss at the end",
    ]
    plan = describe(task, said[OURS]["plan"])
    return (
        f"{plan}; {len(losses[OURS])} iterations. Largest differences of means of "
        f"ten losses:\n\n{common.table(header, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument(
        "--settings",
        nargs="+",
        type=Task.parse,
        default=[Task("2d", 12)],
        help="plans compared on a GPU",
    )
    parser.add_argument("--losses", type=Path, help="keep a GPU's losses in this file")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if common.device() == "cuda":
        with tempfile.TemporaryDirectory(prefix="drift-") as name:
            found = {
                task: on_gpu(task, arguments.iterations, Path(name))
                for task in arguments.settings
            }
        if arguments.losses:
            kept = {str(task): said for task, said in found.items()}
            arguments.losses.write_text(json.dumps(kept), encoding="utf-8")
        common.publish(
            f"Losses when only rounding changes, on {common.device_name()}",
            "\n\n".join(report_gpu(task, said) for task, said in found.items()),
            arguments.output,
        )
        return
    trainings = Trainings()
    losses = {PLAIN: trainings.losses(arguments.iterations)}
    for name, (_, options) in VARIANTS.items():
        losses[name] = trainings.losses(arguments.iterations, **options)
        print(name, [round(loss, 4) for loss in losses[name][-3:]], flush=True)
    common.publish(
        "Losses when only rounding changes",
        f"{common.describe_network(trainings.plan)}; {arguments.iterations} "
        f"iterations; the first loss is {losses[PLAIN][0]:.3f}, the last "
        f"{losses[PLAIN][-1]:.3f}. Largest differences:\n\n{report(losses)}",
        arguments.output,
    )


if __name__ == "__main__":
    main()
