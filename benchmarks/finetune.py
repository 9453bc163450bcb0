"""One fine-tune by this workflow and by nnU-Net's own trainer, side by side.

    python benchmarks/finetune.py [--size demo|real] [--epochs N] [--iterations N]
        [--threads N] [--output docs/benchmarks/finetune.md]

Both sides are a Python process of their own, as a job is, on the same plans, cases,
start weights and schedule. Two times are told apart: the training iterations
themselves, and everything else (interpreter, imports, loading, validation, pictures,
checkpoints). nnU-Net is spared its final validation, which `nnUNetv2_train` adds.

`demo` is a case of the embedded cohort; `real` has the resolution of brain-tumour
patients, and wants a GPU or few iterations.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

# Number of cases to plan on, shape (z, y, x) and spacing (z, y, x) in mm.
SIZES: dict[str, tuple[int, list[int], list[float]]] = {
    "demo": (12, [28, 56, 56], [3.0, 3.0, 3.0]),
    "real": (2, [150, 190, 160], [1.0, 1.0, 1.0]),
}
CONFIGURATION = "2d"
LEARNING_RATE = 0.001
COPIES = 5
AUGMENTATION = {
    "mirror_axes": [0, 1, 2],
    "elastic_alpha": [0, 200],
    "elastic_sigma": [9, 13],
    "scale": [1.0, 1.0],
}


@dataclass(frozen=True)
class Setting:
    """Where the files are, and the schedule."""

    work: Path
    epochs: int
    iterations: int
    threads: int

    @property
    def raw(self) -> Path:
        return self.work / "nnunet" / "raw" / "Dataset001_Cohort"

    @property
    def preprocessed(self) -> Path:
        return self.work / "nnunet" / "preprocessed" / "Dataset001_Cohort"

    @property
    def plans(self) -> Path:
        return self.preprocessed / "nnUNetPlans.json"

    @property
    def dataset(self) -> Path:
        return self.preprocessed / "dataset.json"

    @property
    def base(self) -> Path:
        return self.work / "base" / "fold_all" / "checkpoint_final.pth"

    @property
    def stems(self) -> list[Path]:
        folder = self.preprocessed / f"nnUNetPlans_{CONFIGURATION}"
        return [folder / f"copy_{copy}" for copy in range(COPIES)]

    def schedule(self, **changes: int) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "iterations_per_epoch": self.iterations,
            "initial_lr": LEARNING_RATE,
        } | changes


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare(setting: Setting, size: str) -> None:
    """Phantoms, plans, the copies of one case, and a base model."""
    import SimpleITK

    from casesim import nnunet, phantom, trainer
    from casesim.augmentation import augment

    number, shape, spacing = SIZES[size]
    cases = phantom.case_ids(number)
    options = {"shape": shape, "spacing": spacing, "scanners": 3}
    (setting.raw / "imagesTr").mkdir(parents=True)
    (setting.raw / "labelsTr").mkdir()
    files = {}
    for case in cases:
        patient = phantom.generate(case, options, "", 0)
        files[case] = [
            setting.raw / f"imagesTr/{case}_{channel:04d}.nii.gz"
            for channel in range(len(patient.image))
        ]
        label = setting.raw / f"labelsTr/{case}.nii.gz"
        for array, path in zip(
            [*patient.image, patient.label], [*files[case], label], strict=True
        ):
            volume = SimpleITK.GetImageFromArray(array)
            volume.SetSpacing(spacing[::-1])
            SimpleITK.WriteImage(volume, str(path))
    nnunet.plan(
        setting.raw,
        setting.preprocessed,
        cases,
        phantom.CHANNEL_NAMES,
        phantom.LABELS,
        {
            "configuration": CONFIGURATION,
            "target_spacing": None,
            "gpu_memory_target_gb": 8,
        },
        setting.threads,
    )
    image, label_map, _ = nnunet.read_case(
        files[cases[0]], setting.raw / f"labelsTr/{cases[0]}.nii.gz"
    )
    for copy, stem in enumerate(setting.stems):
        nnunet.preprocess_arrays(
            *augment(image, label_map, AUGMENTATION, cases[0], copy, 0),
            spacing,
            setting.plans,
            setting.dataset,
            CONFIGURATION,
            stem,
        )
    trainer.train(
        setting.stems,
        setting.plans,
        setting.dataset,
        CONFIGURATION,
        setting.base.parents[1],
        setting.schedule(epochs=1, iterations_per_epoch=1),
        seed=0,
        threads=setting.threads,
        device=device(),
    )


def run_ours(setting: Setting) -> None:
    """What the rule `finetune` runs."""
    from casesim import trainer

    trainer.train(
        setting.stems,
        setting.plans,
        setting.dataset,
        CONFIGURATION,
        setting.work / "ours",
        setting.schedule(),
        seed=0,
        threads=setting.threads,
        device=device(),
        start_from=setting.base,
    )


def run_nnunet(setting: Setting) -> None:
    """What `nnUNetv2_train 1 2d all -pretrained_weights ...` runs, without
    compiling."""
    os.environ.update(
        nnUNet_raw=str(setting.work / "nnunet/raw"),
        nnUNet_preprocessed=str(setting.work / "nnunet/preprocessed"),
        nnUNet_results=str(setting.work / "models"),
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
        CONFIGURATION,
        "all",
        nnunet.read_json(setting.dataset),
        torch.device(device()),
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
        str(Path(__file__).resolve()),
        f"--side={side}",
        f"--work={setting.work}",
        f"--epochs={setting.epochs}",
        f"--iterations={setting.iterations}",
        f"--threads={setting.threads}",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout}\n{done.stderr}")
    epochs = re.findall(r"^epoch .*?([\d.]+) s$", done.stdout, re.MULTILINE)
    if len(epochs) != setting.epochs:
        sys.exit(f"{side} reported {len(epochs)} epochs:\n{done.stdout}")
    return Outcome(wall, sum(map(float, epochs)), setting.epochs * setting.iterations)


def report(setting: Setting, size: str, ours: Outcome, theirs: Outcome) -> str:
    from casesim import nnunet

    plan = nnunet.read_json(setting.plans)["configurations"][CONFIGURATION]
    patch = " x ".join(map(str, plan["patch_size"]))
    stages = plan["architecture"]["arch_kwargs"]["n_stages"]
    rows = [
        f"| {name} | {side.wall:.1f} | {side.training:.1f} "
        f"| {1000 * side.training / side.iterations:.0f} | {side.outside:.1f} "
        f"| {100 * side.outside / side.wall:.0f} % |"
        for name, side in (("this workflow", ours), ("nnU-Net's trainer", theirs))
    ]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "nnunetv2"))
    return "\n".join(
        [
            f"### Fine-tune, {size} size",
            "",
            f"{setting.epochs} epochs of {setting.iterations} iterations, {COPIES} "
            f"copies; {CONFIGURATION}, patch {patch}, batch {plan['batch_size']}, "
            f"{stages} stages.",
            "",
            "| | wall (s) | iterations (s) | one iteration (ms) | all else (s) "
            "| share of all else |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"nnU-Net / this workflow: wall {theirs.wall / ours.wall:.2f}, one "
            f"iteration {theirs.training / ours.training:.2f}, all else "
            f"{theirs.outside / ours.outside:.2f}.",
            "",
            f"{_processor()}, {os.cpu_count()} cores, {setting.threads} threads, "
            f"{_accelerator()}; Python {platform.python_version()}, {libraries}; "
            f"{datetime.date.today().isoformat()}.",
            "",
        ]
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="append the table to this file")
    parser.add_argument("--side", choices=["ours", "nnunet"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    values = (arguments.epochs, arguments.iterations, arguments.threads)
    if arguments.side:
        run = run_ours if arguments.side == "ours" else run_nnunet
        run(Setting(arguments.work, *values))
        return
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        setting = Setting(Path(folder), *values)
        prepare(setting, arguments.size)
        ours = measure("ours", setting)
        theirs = measure("nnunet", setting)
        table = report(setting, arguments.size, ours, theirs)
    print(f"\n{table}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(f"{table}\n")


if __name__ == "__main__":
    main()
