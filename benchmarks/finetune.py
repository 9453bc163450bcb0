"""One fine-tune by this workflow and by nnU-Net's own trainer, side by side.

    python -m benchmarks.finetune [--size demo|real] [--epochs N] [--iterations N]
        [--threads N] [--repeats N] [--output docs/benchmarks/finetune.md]

Both sides are jobs of one run of Snakemake, in turn, on the same plans, copies of a
case, start weights, schedule and threads: ours is the script of the rule `finetune`,
which finds its warm process there; nnU-Net's is a process of its own that runs its
trainer, spared the final validation that `nnUNetv2_train` adds. Each job's wall time is
what Snakemake's `benchmark:` measures. Two parts are told apart: the training
iterations themselves, and all else (interpreter, imports, loading, validation,
pictures, checkpoints). The first job of ours also starts the warm process, once a run,
and has a row of its own.

`demo` is a fine-tune of config/config.yaml; `real` has the resolution of brain-tumour
patients, and wants a GPU or few iterations: what its share is with the schedule of
config/paper.yaml is computed from the time of one iteration.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import setting as common

LEARNING_RATE = 0.001
COPIES = 5
AUGMENTATION = {
    "mirror_axes": [0, 1, 2],
    "elastic_alpha": [0, 200],
    "elastic_sigma": [9, 13],
    "scale": [1.0, 1.0],
}
FINETUNE = common.ROOT / "workflow_scripts/training/finetune.py"

# Everything in turn, so that neither side has the machine at a better time.
SNAKEFILE = """
import sys

# Handed on to scripts, as the workflow's own Snakefile does.
sys.path.insert(0, "{scripts}")
config["training"] = {{"checkpoint_minutes": 5, "validate_every": 0}}


rule all:
    input:
        "nnunet_{repeats}.done",


rule finetune:
    input:
        copies={copies},
        base="{base}",
        plans="{plans}",
        dataset="{dataset}",
        before=lambda w: [] if w.round == "0" else f"nnunet_{{int(w.round) - 1}}.done",
    output:
        plans="ours/{{round}}/plans.json",
    wildcard_constraints:
        round="[0-9]+",
    log:
        "ours_{{round}}.log",
    benchmark:
        "ours_{{round}}.tsv"
    threads: {threads}
    resources:
        gpu={gpu},
        mem_mb=16000,
    params:
        training={training},
    script:
        "{script}"


rule nnunet:
    input:
        "ours/{{round}}/plans.json",
    output:
        touch("nnunet_{{round}}.done"),
    log:
        "nnunet_{{round}}.log",
    benchmark:
        "nnunet_{{round}}.tsv"
    threads: {threads}
    shell:
        "(cd {root} && {command}) > {{log}} 2>&1"
"""


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


def settings(name: str) -> dict[str, Any]:
    """One of the configurations that are shipped."""
    path = common.ROOT / f"config/{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def prepare(setting: Setting, size: common.Size) -> None:
    """Phantoms, plans, the copies of one case, and a base model."""
    from casesim.nnunet import preprocessing
    from casesim.training.augmentation import augment

    case = common.prepare_cases(setting, size)[0]
    if size is common.SIZES["demo"]:
        common.use_batches_of_the_demo(setting)
    image, label_map, _ = preprocessing.read_case(
        setting.images(case), setting.label(case)
    )
    for copy, stem in enumerate(setting.stems):
        preprocessing.preprocess_arrays(
            *augment(image, label_map, AUGMENTATION, case, copy, 0),
            size.spacing,
            setting.plans,
            setting.dataset,
            common.CONFIGURATION,
            stem,
        )
    common.train(setting, "base", setting.stems, iterations=1)


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

    from casesim.nnunet.files import read_json

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
        {**read_json(setting.plans), "continue_training": False},
        common.CONFIGURATION,
        "all",
        read_json(setting.dataset),
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
    """Seconds that one job took."""

    wall: float
    training: float

    @property
    def outside(self) -> float:
        return self.wall - self.training


def measure(setting: Setting, repeats: int) -> tuple[list[Outcome], list[Outcome]]:
    """Our jobs and nnU-Net's, in the order in which they ran.

    There is one more than `repeats` of each. Our first starts the warm process, and
    both first ones find the files that they import not yet in memory.
    """
    command = [
        *(sys.executable, "-m", "benchmarks.finetune", "--side=nnunet"),
        f"--work={setting.work}",
        f"--epochs={setting.epochs}",
        f"--iterations={setting.iterations}",
        f"--threads={setting.threads}",
    ]
    copies = [f"{stem}.pkl" for stem in setting.stems]
    training = {
        "seed": 0,
        "schedule": setting.schedule,
        "storage": "float32",
        "configuration": common.CONFIGURATION,
    }
    (setting.work / "Snakefile").write_text(
        SNAKEFILE.format(
            repeats=repeats,
            copies=copies,
            base=setting.base,
            plans=setting.plans,
            dataset=setting.dataset,
            threads=setting.threads,
            gpu=int(common.device() == "cuda"),
            training=training,
            script=FINETUNE,
            scripts=FINETUNE.parents[1],
            root=common.ROOT,
            command=shlex.join(command),
        )
    )
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", str(setting.threads), "--quiet"],
        cwd=setting.work,
        env=os.environ | {"CASESIM_RESIDENT": "1"},
        check=False,
    )
    if run.returncode:
        logs = sorted(setting.work.glob("*.log"), key=lambda log: log.stat().st_mtime)
        sys.exit("\n".join(["A job failed:", *(log.read_text() for log in logs[-1:])]))
    ours, theirs = (
        [outcome(setting, f"{side}_{number}") for number in range(repeats + 1)]
        for side in ("ours", "nnunet")
    )
    return ours, theirs


def outcome(setting: Setting, job: str) -> Outcome:
    """What Snakemake measured of a job, and its log tells."""
    header, values = (setting.work / f"{job}.tsv").read_text().splitlines()[:2]
    wall = float(values.split("\t")[header.split("\t").index("s")])
    log = (setting.work / f"{job}.log").read_text()
    epochs = re.findall(r"^epoch .*?([\d.]+) s$", log, re.MULTILINE)
    if len(epochs) != setting.epochs:
        sys.exit(f"{job} reported {len(epochs)} epochs:\n{log}")
    return Outcome(wall, sum(map(float, epochs)))


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """The median, and in parentheses the least and the greatest."""
    low, middle, high = (
        form.format(value)
        for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def report(setting: Setting, ours: list[Outcome], theirs: list[Outcome]) -> str:
    first, *ours = ours
    _, *theirs = theirs
    iterations = setting.epochs * setting.iterations

    def row(name: str, jobs: list[Outcome]) -> list[str]:
        milliseconds = [1000 * job.training / iterations for job in jobs]
        return [
            name,
            spread([job.wall for job in jobs]),
            spread([job.training for job in jobs]),
            spread(milliseconds, "{:.0f}"),
            spread([job.outside for job in jobs]),
            spread([100 * job.outside / job.wall for job in jobs], "{:.1f} %"),
        ]

    header = [
        "",
        "wall (s)",
        "iterations (s)",
        "one iteration (ms)",
        "all else (s)",
        "share of all else",
    ]
    started = first.outside - statistics.median(job.outside for job in ours)
    rows = [
        row("this workflow", ours),
        row("nnU-Net's trainer", theirs),
        ["start of the warm process, once a run", *"-" * 3, f"{started:.2f}", "-"],
    ]
    ratios = [
        f"{name} " + spread([of(b) / of(a) for a, b in zip(ours, theirs, strict=True)])
        for name, of in (
            ("wall", lambda job: job.wall),
            ("one iteration", lambda job: job.training),
            ("all else", lambda job: job.outside),
        )
    ]
    paper = settings("paper")["training"]["finetune"]
    planned = paper["epochs"] * paper["iterations_per_epoch"]
    shares = [
        100 * job.outside / (job.outside + planned * job.training / iterations)
        for job in ours
    ]
    return (
        f"{setting.epochs} epochs of {setting.iterations} iterations, {COPIES} copies; "
        f"{common.describe_network(setting.plan)}; {setting.threads} threads; median "
        f"of {len(ours)} jobs (least to greatest).\n\n"
        f"{common.table(header, rows)}\n\n"
        f"nnU-Net / this workflow: {', '.join(ratios)}.\n\n"
        f"With the {planned} iterations of config/paper.yaml, all else would be "
        f"{spread(shares, '{:.3f} %')} of a job of ours."
    )


def main() -> None:
    demo = settings("config")["training"]["finetune"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=common.SIZES, default="demo")
    parser.add_argument("--epochs", type=int, default=demo["epochs"])
    parser.add_argument("--iterations", type=int, default=demo["iterations_per_epoch"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="put the table into this file")
    parser.add_argument("--side", choices=["nnunet"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    values = (arguments.threads, arguments.epochs, arguments.iterations)
    if arguments.side:
        run_nnunet(Setting(arguments.work, *values))
        return
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        setting = Setting(Path(folder), *values)
        prepare(setting, common.SIZES[arguments.size])
        body = report(setting, *measure(setting, arguments.repeats))
    common.publish(f"Fine-tune, {arguments.size} size", body, arguments.output)


if __name__ == "__main__":
    main()
