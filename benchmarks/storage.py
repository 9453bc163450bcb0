"""What models take on disk, and what storing their weights in half precision changes.

    python -m benchmarks.storage [--models N] [--cases N] [--threads N]
        [--output docs/benchmarks/storage.md]

Fine-tuned models of the embedded cohort, of as many iterations as the demo's, are
stored twice, with `training.storage` float32 and float16, and segment the same cases.
Their labels are small: one voxel more or less can change a Dice value by more than
1e-3. The sizes are those of checkpoints of the network that nnU-Net plans for brain
tumours at their own resolution, with random weights: size does not depend on their
values.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks import setting as common

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3
# Models of the paper, and of all labelled cases of the task.
NUMBERS = (50, 484)


@dataclass(frozen=True)
class Agreement:
    """Differences of Dice between two storages, over models, cases and labels."""

    by_label: list[float]
    of_means: list[float]  # of the mean over labels: a cell of the matrix


def agreement(setting: common.Setting, models: int, cases: Sequence[str]) -> Agreement:
    """Fine-tune on the first cases; segment all with both storages of each model."""
    stems = common.preprocess(setting, cases)
    schedules = yaml.safe_load((common.ROOT / "config/config.yaml").read_text("utf-8"))
    iterations = {
        name: schedule["epochs"] * schedule["iterations_per_epoch"]
        for name, schedule in schedules["training"].items()
        if name in ("base", "finetune")
    }
    base = common.train(setting, "base", stems, iterations["base"])
    by_label: list[float] = []
    of_means: list[float] = []
    for case, stem in zip(cases[:models], stems, strict=False):
        full = common.train(
            setting, f"finetuned/{case}", [stem], iterations["finetune"], base
        )
        half = store_in_half(setting, full)
        for other in cases:
            first, second = (dice(setting, path, other) for path in (full, half))
            differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
            by_label += differences
            of_means.append(abs(sum(first) - sum(second)) / len(first))
    return Agreement(by_label, of_means)


def store_in_half(setting: common.Setting, checkpoint: Path) -> Path:
    """The same model as `training.storage: float16` keeps it."""
    from casesim.nnunet import checkpoints
    from casesim.nnunet.files import read_json

    content = checkpoints.read_checkpoint(checkpoint)
    return checkpoints.save_model(
        setting.model("half"),
        content["network_weights"],
        read_json(setting.plans),
        read_json(setting.dataset),
        common.CONFIGURATION,
        content["inference_allowed_mirroring_axes"],
        storage="float16",
    )


def dice(setting: common.Setting, checkpoint: Path, case: str) -> list[float]:
    """Dice of each foreground label of one case; phantoms have all of them."""
    from casesim.inference import label_maps, overlap, sliding_window
    from casesim.nnunet import checkpoints, preprocessing
    from casesim.nnunet.files import read_json

    model = checkpoints.load_model(checkpoint, common.device())
    data, _, properties = preprocessing.load_preprocessed(setting.stem(case))
    logits = sliding_window.predict_logits(model, data)
    predicted = label_maps.to_label_map(model, logits, properties)
    labels = read_json(setting.dataset)["labels"]
    counts = overlap.count(
        predicted,
        label_maps.read_label_map(setting.label(case)),
        {name: (number,) for name, number in labels.items() if number},
    )
    return [overlap.dice(c["tp"], c["fp"], c["fn"]) for c in counts.values()]


def checkpoint_sizes(setting: common.Setting) -> dict[str, int]:
    """Bytes of a checkpoint with weights only, in two formats, and with SGD's state."""
    import torch

    from casesim.nnunet import checkpoints, planning
    from casesim.nnunet.files import read_json

    plans, configuration = planning.load_plans(setting.plans, common.CONFIGURATION)
    dataset = read_json(setting.dataset)
    network = checkpoints.build_network(
        plans, configuration, dataset, deep_supervision=True, initialise=True
    )
    sizes = {}
    for storage in ("float32", "float16"):
        path = checkpoints.save_model(
            setting.model(storage),
            network.state_dict(),
            plans.plans,
            dataset,
            common.CONFIGURATION,
            (0, 1),
            storage,
        )
        sizes[storage] = path.stat().st_size
    with_optimizer = setting.work / "with_optimizer.pth"
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": optimizer_after_a_step(network).state_dict(),
        },
        with_optimizer,
    )
    return {"with optimizer": with_optimizer.stat().st_size, **sizes}


def optimizer_after_a_step(network: "torch.nn.Module") -> "torch.optim.Optimizer":
    """nnU-Net's optimizer, which has a momentum for each weight from then on."""
    import torch

    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99)
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return optimizer


def report_agreement(found: Agreement) -> str:
    """How far Dice moves when weights are stored as float16."""
    rows = {"single labels": found.by_label, "cells (mean of labels)": found.of_means}
    return common.table(
        ["change of Dice", "values", "median", "largest", f"within {TOLERANCE:g}"],
        [
            [
                name,
                len(values),
                f"{statistics.median(values):.1e}",
                f"{max(values):.1e}",
                sum(value <= TOLERANCE for value in values),
            ]
            for name, values in rows.items()
        ],
    )


def report_sizes(sizes: dict[str, int]) -> str:
    """A model, 50 and 484 of them, for each way of storing."""
    names = {
        "with optimizer": "as nnU-Net stores it, with optimizer",
        "float32": "weights only (`storage: float32`)",
        "float16": "weights only (`storage: float16`)",
    }
    return common.table(
        ["", "a model (MB)", *(f"{number} models (GB)" for number in NUMBERS)],
        [
            [
                names[name],
                f"{size / 1e6:.0f}",
                *(f"{number * size / 1e9:.1f}" for number in NUMBERS),
            ]
            for name, size in sizes.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    demo = common.SIZES["demo"]
    with tempfile.TemporaryDirectory(prefix="storage-") as folder:
        setting = common.Setting(Path(folder), arguments.threads)
        size = common.Size(arguments.cases, demo.shape, demo.spacing)
        cases = common.prepare_cases(setting, size)
        common.use_batches_of_the_demo(setting)
        found = agreement(setting, arguments.models, cases)
        text = (
            f"{arguments.models} fine-tuned models on {len(cases)} cases; "
            f"{common.describe_network(setting.plan)}.\n\n{report_agreement(found)}"
        )
    common.publish("Agreement of half precision", text, arguments.output)
    with tempfile.TemporaryDirectory(prefix="storage-") as folder:
        setting = common.Setting(Path(folder), arguments.threads)
        common.prepare_cases(setting, common.SIZES["real"])
        tables = []
        for stages in (None, common.REAL_STAGES):
            if stages is not None:
                common.set_stages(setting, stages)
            sizes = report_sizes(checkpoint_sizes(setting))
            by = "as nnU-Net plans it" if stages is None else "deeper"
            tables.append(f"{common.describe_network(setting.plan)}, {by}:\n\n{sizes}")
        text = "\n\n".join(tables)
    common.publish("Size of models, real size", text, arguments.output)


if __name__ == "__main__":
    main()
