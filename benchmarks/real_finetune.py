"""A whole fine-tune at a real plan, as the workflow runs it, for its times.

    python -m benchmarks.real_finetune --settings 2d:plan --folder F --options JSON

is the process that trains; `run_job` starts it and reads its log.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import setting as common
from benchmarks.iterating import CHANNELS, Task, dataset

COPIES = 5
EPOCHS = 3


@dataclass(frozen=True)
class Job:
    """One way to fine-tune.

    `name` is of its model's folder: one that is finished would be taken as it is.
    `host`: batches are made by nnU-Net's transforms in loading processes. `iterations`
    are those of an epoch.
    """

    name: str
    host: bool = False
    iterations: int = 40
    compiled: bool = True

    @property
    def part(self) -> str:
        """Of the benchmark."""
        return "loading" if self.host else "jobs"


def make_cases(folder: Path, task: Task, shape: Sequence[int]) -> list[Path]:
    """Preprocessed copies of the extent of a case, of noise with a lesion."""
    import numpy as np

    from casesim.nnunet import preprocessing
    from casesim.nnunet.files import write_json

    write_json(folder / "dataset.json", dataset())
    draw = np.random.default_rng(0)
    stems = []
    for number in range(COPIES):
        label = np.zeros(shape, np.int16)
        lesion = tuple(slice(n // 3, 2 * n // 3) for n in shape)
        label[lesion] = draw.integers(0, 4, label[lesion].shape)
        image = draw.normal(500, 100, (len(CHANNELS), *shape)) + 50 * label
        stems.append(folder / f"copy_{number}")
        preprocessing.preprocess_arrays(
            image.astype(np.float32),
            label,
            [1.0, 1.0, 1.0],
            folder / f"{task.name}.json",
            folder / "dataset.json",
            task.configuration,
            stems[-1],
        )
    return stems


def work_job(folder: Path, task: Task, options: Mapping[str, Any]) -> None:
    """A worker that fine-tunes as the workflow does; its log has the times."""
    from casesim.training import run
    from casesim.training.device_batches import DeviceBatches

    if options["host"]:
        setattr(DeviceBatches, "fits", staticmethod(lambda *_: False))  # noqa: B010
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options["cores"]])
    run.train(
        [folder / f"copy_{number}" for number in range(COPIES)],
        folder / f"{task.name}.json",
        folder / "dataset.json",
        task.configuration,
        folder / f"model-{options['name']}",
        {
            "epochs": EPOCHS,
            "iterations_per_epoch": options["iterations"],
            "initial_lr": 0.001,
        },
        seed=0,
        threads=options["cores"],
        device=common.device(),
        compile_network=common.device() == "cuda" and options["compiled"],
        compiler_cache=folder / "compiled-jobs",
    )


def run_job(folder: Path, task: Task, cores: int, job: Job) -> dict[str, float]:
    """Seconds to the first iteration, and of one iteration of the last epoch."""
    options = {"cores": cores, **asdict(job)}
    command = [
        *(sys.executable, "-m", "benchmarks.real_finetune"),
        *("--settings", str(task), "--folder", str(folder)),
        *("--options", json.dumps(options)),
    ]
    done = subprocess.run(
        command, cwd=common.ROOT, capture_output=True, text=True, check=False
    )
    ready = re.search(r"ready after ([\d.]+) s", done.stdout)
    each = re.findall(r"^epoch .*, ([\d.]+) s", done.stdout, re.M)
    if ready is None or len(each) < EPOCHS:
        sys.exit(f"the fine-tune ended:\n{(done.stdout + done.stderr)[-6000:]}")
    times = [float(value) for value in each]
    return {
        "ready": float(ready[1]),
        "first_epoch": times[0],
        "last_epoch": times[-1],
        "iteration": times[-1] / job.iterations,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", type=Task.parse, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    given = parser.parse_args()
    work_job(given.folder, given.settings, given.options)


if __name__ == "__main__":
    main()
