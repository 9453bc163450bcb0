"""How far the losses of a training move when its arithmetic is done in another order.

    python -m benchmarks.drift [--iterations N] [--output docs/benchmarks/drift.md]

A training amplifies what rounding changes. So a compiled iteration can only be asked to
stay as near to one that is not as other changes of nothing but rounding do: of the
layout, of the precision. All start from the same weights and get the same batches, of a
small plan; on the CPU, with one thread, where a repetition is equal bit for bit.
`benchmarks/training.py` compares losses on a GPU, at real plans.
"""

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import setting as common
from benchmarks.iterating import Task, dataset, initial_weights, make_batches, plans
from benchmarks.training import distance

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
            self._trainer.loss,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
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
