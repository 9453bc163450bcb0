"""What an iteration of each of nnU-Net's presets takes on a CPU: time and memory.

    python -m benchmarks.presets [--threads N] [--repeats N]
        [--output docs/benchmarks/presets.md]

nnU-Net plans each preset for 100 cases of brain tumours. Its networks then train on
random batches that a CPU manages: the planned patch in 2d, one of 64 x 64 x 64 voxels
in 3d, and two samples in both. Presets that are the same network are measured once.
The cascade's second stage is the network of 3d_fullres with a channel more for each
label: nnU-Net plans none for images of this size.
Each network has a process of its own, whose largest memory counts; what it has when the
network is built is beside it. Times are the process's own, of all its threads, so that
other programs on the machine matter little.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import setting as common

CASES, SHAPE, LABELS = 100, [138, 169, 138], ["edema", "core", "enhancing"]
CHANNELS = ["FLAIR", "T1w", "T1gd", "T2w"]
SMALL_PATCH = [64, 64, 64]
BATCH = 2
CASCADE = "3d_cascade_fullres"
CONFIGURATIONS = ("2d", "3d_fullres", CASCADE)


def make_plans(planner: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """nnU-Net's plans for brain tumours, and the dataset.json that they are for."""
    from casesim.nnunet import planning

    names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5")
    fingerprint = {
        "spacings": [[1.0] * 3] * CASES,
        "shapes_after_crop": [SHAPE] * CASES,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {
            str(i): dict.fromkeys((*names, "std"), 1.0) for i in range(len(CHANNELS))
        },
    }
    labels = {"background": 0, **{name: i + 1 for i, name in enumerate(LABELS)}}
    cases = [f"case_{i}" for i in range(CASES)]
    dataset = planning.dataset_json(cases, CHANNELS, labels)
    plans = planning.plans_for(fingerprint, dataset, {"planner": planner})
    configurations = plans["configurations"]
    configurations[CASCADE] = {
        **configurations["3d_fullres"],
        "previous_stage": "3d_lowres",
    }
    return plans, dataset


def measure(planner: str, configuration: str, threads: int, repeats: int) -> None:
    """Train for a few iterations in this process; print what they took as JSON."""
    import torch

    from casesim.training.trainer import CaseTrainer

    torch.set_num_threads(threads)
    plans, dataset = make_plans(planner)
    planned = plans["configurations"][configuration]
    patch = planned["patch_size"] if configuration == "2d" else SMALL_PATCH
    plans["configurations"][configuration] = {
        **planned,
        **{"patch_size": patch, "batch_size": BATCH},
    }
    device = torch.device("cpu")
    trainer = CaseTrainer(plans, configuration, "all", dataset, device)
    schedule = {"epochs": 1, "iterations_per_epoch": 1, "initial_lr": 0.01}
    trainer.initialize(schedule, 0, None)
    trainer.begin_epoch(0)
    built = peak_gb()
    channels = len(CHANNELS) + (len(LABELS) if configuration == CASCADE else 0)
    batch = {
        "data": torch.randn(BATCH, channels, *patch),
        "target": [
            torch.randint(
                0,
                len(LABELS) + 1,
                (BATCH, 1, *(round(n * s) for n, s in zip(patch, scale, strict=True))),
                dtype=torch.int16,
            )
            for scale in trainer._get_deep_supervision_scales()
        ],
    }
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        trainer.train_step(batch)
        seconds.append(time.process_time() - start)
    found = {
        "parameters": sum(weight.numel() for weight in trainer.network.parameters()),
        "patch": patch,
        "seconds": statistics.median(seconds[1:]),
        "built_gb": built,
        "peak_gb": peak_gb(),
    }
    print(json.dumps(found))


def peak_gb() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(
    planner: str, configuration: str, threads: int, repeats: int
) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.presets", "--threads", str(threads)]
    command += ["--repeats", str(repeats), "--one", planner, configuration]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(threads: int, repeats: int) -> str:
    """Plans of all presets, and what their networks take."""
    from casesim.nnunet.planning import PLANNERS

    rows = []
    for configuration in CONFIGURATIONS:
        known: dict[str, dict[str, Any]] = {}
        for planner in PLANNERS if configuration != CASCADE else ["default"]:
            plans, _ = make_plans(planner)
            planned = plans["configurations"][configuration]
            network = json.dumps(planned["architecture"], sort_keys=True)
            if network not in known:
                known[network] = measured(planner, configuration, threads, repeats)
            found = known[network]
            voxels = math.prod(planned["patch_size"]) * planned["batch_size"]
            rows.append(
                [
                    *(planner, configuration, f"{found['parameters'] / 1e6:.1f}"),
                    f"{_by(planned['patch_size'])}, {planned['batch_size']}",
                    f"{voxels / 1e6:.1f}",
                    f"{_by(found['patch'])}, {BATCH}",
                    f"{found['seconds']:.2f}",
                    f"{found['peak_gb']:.2f} ({found['built_gb']:.2f})",
                ]
            )
    header = ["planner", "configuration", "weights (millions)", "planned patch, batch"]
    header += ["voxels of a batch (millions)", "measured patch, batch"]
    header += ["processor seconds an iteration", "memory: peak (network built), GB"]
    return common.table(header, rows)


def _by(numbers: list[int]) -> str:
    return " x ".join(map(str, numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="put the table into this file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        planner, configuration = arguments.one
        measure(planner, configuration, arguments.threads, arguments.repeats)
        return
    body = report(arguments.threads, arguments.repeats)
    title = f"Training iterations on a CPU, threads: {arguments.threads}"
    common.publish(title, body, arguments.output)


if __name__ == "__main__":
    main()
