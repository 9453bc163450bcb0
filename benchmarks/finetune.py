"""One fine-tune by this workflow and by nnU-Net's own trainer, side by side.

    python -m benchmarks.finetune [--size demo|real] [--epochs N] [--iterations N]
        [--threads N] [--output docs/benchmarks/finetune.md]

Both sides are a Python process of their own, as a job is, on the same plans, cases,
start weights and schedule. Two times are told apart: the training iterations
themselves, and everything else (interpreter, imports, loading, validation, pictures,
checkpoints). nnU-Net is spared its final validation, which `nnUNetv2_train` adds.

`demo` is a case of the embedded cohort; `real` has the resolution of brain-tumour
patients, and wants a GPU or few iterations.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import setting as common

LEARNING_RATE = 0.001
COPIES = 5
AUGMENTATION = {
    "mirror_axes": [0, 1, 2],
    "elastic_alpha": [0, 200],
    "elastic_sigma": [9, 13],
    "scale": [1.0, 1.0],
}


@dataclass(frozen=True)
class Setting(common.Setting):
    """Where the files are, and the schedule."""

    epochs: int
    iterations: int

    @property
    def base(self) -> Path:
        return self.checkpoint("base")

    @property
    def stems(self) -> list[Path]:
        return [self.stem(f"copy_{copy}") for copy in range(COPIES)]

    @property
    def schedule(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "iterations_per_epoch": self.iterations,
            "initial_lr": LEARNING_RATE,
        }


def prepare(setting: Setting, size: common.Size) -> None:
    """Phantoms, plans, the copies of one case, and a base model."""
    from casesim import nnunet
    from casesim.augmentation import augment

    case = common.prepare_cases(setting, size)[0]
    image, label_map, _ = nnunet.read_case(setting.images(case), setting.label(case))
    for copy, stem in enumerate(setting.stems):
        nnunet.preprocess_arrays(
            *augment(image, label_map, AUGMENTATION, case, copy, 0),
            size.spacing,
            setting.plans,
            setting.dataset,
            common.CONFIGURATION,
            stem,
        )
    common.train(setting, "base", setting.stems, iterations=1)


def run_ours(setting: Setting) -> None:
    """What the rule `finetune` runs."""
    from casesim import trainer

    trainer.train(
        setting.stems,
        setting.plans,
        setting.dataset,
        common.CONFIGURATION,
        setting.model("ours"),
        setting.schedule,
        seed=0,
        threads=setting.threads,
        device=common.device(),
        start_from=setting.base,
    )


def run_nnunet(setting: Setting) -> None:
    """What `nnUNetv2_train 1 2d all -pretrained_weights ...` runs, without
    compiling."""
    os.environ.update(
        nnUNet_raw=str(setting.raw.parent),
        nnUNet_preprocessed=str(setting.preprocessed.parent),
        nnUNet_results=str(setting.model("nnunet")),
        nnUNet_compile="f",
    )
    import torch
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from casesim import nnunet

    class TimedTrainer(nnUNetTrainer):
        """nnU-Net's trainer, with a clock around the iterations of an epoch."""

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()
            super().on_train_epoch_start()

        def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
            super().on_train_epoch_end(train_outputs)
            report_epoch(time.perf_counter() - self.started)

    torch.set_num_threads(setting.threads)
    trainer = TimedTrainer(
        {**nnunet.read_json(setting.plans), "continue_training": False},
        common.CONFIGURATION,
        "all",
        nnunet.read_json(setting.dataset),
        torch.device(common.device()),
    )
    trainer.num_epochs = setting.epochs
    trainer.num_iterations_per_epoch = setting.iterations
    # Validation is a fifth of the training in nnU-Net: 50 to 250 iterations.
    trainer.num_val_iterations_per_epoch = max(1, setting.iterations // 5)
    trainer.initial_lr = LEARNING_RATE
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(setting.base))
    trainer.run_training()


def report_epoch(seconds: float) -> None:
    print(f"epoch done: {seconds:.2f} s", flush=True)


@dataclass(frozen=True)
class Outcome:
    """Seconds that one side took."""

    wall: float
    training: float
    iterations: int

    @property
    def outside(self) -> float:
        return self.wall - self.training


def measure(side: str, setting: Setting) -> Outcome:
    """Run one side in a process of its own."""
    command = [
        sys.executable,
        *("-m", "benchmarks.finetune"),
        f"--side={side}",
        f"--work={setting.work}",
        f"--epochs={setting.epochs}",
        f"--iterations={setting.iterations}",
        f"--threads={setting.threads}",
    ]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=common.ROOT, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout}\n{done.stderr}")
    epochs = re.findall(r"^epoch .*?([\d.]+) s$", done.stdout, re.MULTILINE)
    if len(epochs) != setting.epochs:
        sys.exit(f"{side} reported {len(epochs)} epochs:\n{done.stdout}")
    return Outcome(wall, sum(map(float, epochs)), setting.epochs * setting.iterations)


def report(setting: Setting, ours: Outcome, theirs: Outcome) -> str:
    rows = [
        [
            name,
            f"{side.wall:.1f}",
            f"{side.training:.1f}",
            f"{1000 * side.training / side.iterations:.0f}",
            f"{side.outside:.1f}",
            f"{100 * side.outside / side.wall:.0f} %",
        ]
        for name, side in (("this workflow", ours), ("nnU-Net's trainer", theirs))
    ]
    header = [
        "",
        "wall (s)",
        "iterations (s)",
        "one iteration (ms)",
        "all else (s)",
        "share of all else",
    ]
    return (
        f"{setting.epochs} epochs of {setting.iterations} iterations, {COPIES} copies; "
        f"{common.describe_network(setting.plan)}; {setting.threads} threads.\n\n"
        f"{common.table(header, rows)}\n\n"
        f"nnU-Net / this workflow: wall {theirs.wall / ours.wall:.2f}, one iteration "
        f"{theirs.training / ours.training:.2f}, all else "
        f"{theirs.outside / ours.outside:.2f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=common.SIZES, default="demo")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the table into this file")
    parser.add_argument("--side", choices=["ours", "nnunet"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    values = (arguments.threads, arguments.epochs, arguments.iterations)
    if arguments.side:
        run = run_ours if arguments.side == "ours" else run_nnunet
        run(Setting(arguments.work, *values))
        return
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        setting = Setting(Path(folder), *values)
        prepare(setting, common.SIZES[arguments.size])
        ours = measure("ours", setting)
        theirs = measure("nnunet", setting)
        body = report(setting, ours, theirs)
    common.publish(f"Fine-tune, {arguments.size} size", body, arguments.output)


if __name__ == "__main__":
    main()
