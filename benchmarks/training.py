"""One iteration of training by this workflow and by nnU-Net's trainer, side by side.

    python -m benchmarks.training [--settings 2d:plan 3d_fullres:plan 2d:12]
        [--iterations N] [--turns N] [--cores N] [--output docs/benchmarks/training.md]

The plans are nnU-Net's for a hundred brain-tumour cases of the Decathlon's size (its
planner is given a fingerprint of that size) at 8 GB. Each side is a process of its own,
nnU-Net's trainer as it ships: compiled on a GPU, its loss fetched in every iteration.
Both start from the same weights and get the same batches, which lie in pinned memory:
what is timed is the iteration alone. They are timed in turns, after a hundred
iterations, whose losses are compared: nnU-Net's are computed twice. All processes
compile at the same time, so that the seconds of a first iteration say little; then the
start of a training whose compiler cache is warm is timed alone.

At last a fine-tune is run as the workflow runs it, on `--cores` cores: with batches
made on the device, and with nnU-Net's transforms in loading processes.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import setting as common

if TYPE_CHECKING:
    import torch

CASES = 100
# Median of the Decathlon's brain tumours after cropping (z, y, x), at 1 mm.
SHAPE = [138, 169, 138]
CHANNELS = ["FLAIR", "T1w", "T1gd", "T2w"]
LABELS = {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3}
LEARNING_RATE = 0.01
EPOCHS = 1000
FEW = 5
DISTINCT_BATCHES = 8
COPIES = 5
SLOTS = (1, 2, 4)
SIDES = ("ours", "nnunet", "nnunet-again")
_RESULT = "RESULT "


@dataclass(frozen=True)
class Task:
    """A configuration and a batch size (None: the planner's)."""

    configuration: str
    batch: int | None

    @classmethod
    def parse(cls, text: str) -> "Task":
        """`2d:plan` or `2d:12`."""
        configuration, _, batch = text.partition(":")
        return cls(configuration, None if batch in ("", "plan") else int(batch))

    @property
    def name(self) -> str:
        """For file names."""
        return f"{self.configuration}-{self.batch or 'plan'}"

    def __str__(self) -> str:
        return f"{self.configuration}:{self.batch or 'plan'}"


def dataset() -> dict[str, Any]:
    """A dataset.json of a hundred cases with four channels."""
    from casesim.nnunet import planning

    return planning.dataset_json(
        [f"case_{i:03d}" for i in range(CASES)], CHANNELS, LABELS
    )


def plans(task: Task, shape: Sequence[int] = SHAPE) -> dict[str, Any]:
    """nnU-Net's plans for a fingerprint of brain tumours, with the task's batch."""
    from casesim.nnunet import planning

    intensities = {
        "max": 2000.0,
        "mean": 600.0,
        "median": 600.0,
        "min": 0.0,
        "percentile_00_5": 10.0,
        "percentile_99_5": 1500.0,
        "std": 300.0,
    }
    fingerprint = {
        "foreground_intensity_properties_per_channel": {
            str(i): intensities for i in range(len(CHANNELS))
        },
        "median_relative_size_after_cropping": 0.4,
        "shapes_after_crop": [list(shape)] * CASES,
        "spacings": [[1.0, 1.0, 1.0]] * CASES,
    }
    config = {
        "configuration": task.configuration,
        "target_spacing": None,
        "gpu_memory_target_gb": 8,
    }
    made = planning.plans_for(fingerprint, dataset(), config)
    if task.batch:
        made["configurations"][task.configuration]["batch_size"] = task.batch
    return made


def make_batches(
    plan: Mapping[str, Any], scales: Sequence[Sequence[float]], number: int
) -> list[dict[str, Any]]:
    """Random batches that can be learnt: brightness follows label; pinned on a GPU."""
    import torch

    generator = torch.Generator().manual_seed(0)
    patch = list(plan["patch_size"])
    size = (plan["batch_size"], 1, *patch)
    contrast = torch.tensor(
        [[0, 1, 0.5, 0], [0, -1, -0.5, 0.5], [0, 0, 0, 2], [0, 0.5, 1, 1]]
    )
    mode = "bilinear" if len(patch) == 2 else "trilinear"
    batches = []
    for _ in range(number):
        coarse = torch.randn(
            (size[0], 1, *[max(2, n // 24) for n in patch]), generator=generator
        )
        field = torch.nn.functional.interpolate(coarse, patch, mode=mode)
        label = (field > 0.5).int() + (field > 0.8).int() + (field > 1.1).int()
        image = contrast[:, label[:, 0].long()].movedim(0, 1)
        image = image + torch.randn(image.shape, generator=generator)
        target = [
            torch.nn.functional.interpolate(
                label.float(), [round(n * s) for n, s in zip(patch, scale, strict=True)]
            ).to(torch.int16)
            for scale in scales
        ]
        image = image.contiguous()
        if common.device() == "cuda":
            image = image.pin_memory()
            target = [values.pin_memory() for values in target]
        batches.append({"data": image, "target": target})
    return batches


def initial_weights(
    plans_json: dict[str, Any], task: Task
) -> dict[str, "torch.Tensor"]:
    """The same for both sides."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from casesim.nnunet import checkpoints

    torch.manual_seed(0)
    manager = PlansManager(plans_json)
    network = checkpoints.build_network(
        manager, manager.get_configuration(task.configuration), dataset(), True, True
    )
    return dict(network.state_dict())


def build_nnunet(plans_json: dict[str, Any], task: Task, folder: Path) -> Any:
    """nnU-Net's trainer as it ships, ready for iterations."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from casesim.nnunet.files import write_json

    # As `nnUNetv2_train` sets it.
    torch.backends.cudnn.benchmark = common.device() == "cuda"
    raw = folder / "preprocessed" / plans_json["dataset_name"]
    stored = raw / f"nnUNetPlans_{task.configuration}"
    stored.mkdir(parents=True, exist_ok=True)
    (stored / "case.b2nd").touch()  # the trainer looks for the kind of its cases
    write_json(raw / "dataset.json", dataset())
    os.environ.update(
        nnUNet_raw=str(folder),
        nnUNet_preprocessed=str(folder / "preprocessed"),
        nnUNet_results=str(folder / "results"),
    )
    trainer = nnUNetTrainer(
        {**plans_json, "continue_training": False},
        task.configuration,
        "all",
        dataset(),
        torch.device(common.device()),
    )
    trainer.initial_lr, trainer.num_epochs = LEARNING_RATE, EPOCHS
    trainer.initialize()
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    network.load_state_dict(initial_weights(plans_json, task))
    trainer.lr_scheduler.step(0)
    return trainer


def build_ours(
    plans_json: dict[str, Any], task: Task, options: Mapping[str, Any]
) -> Any:
    """Our trainer, compiled on a GPU, ready for iterations."""
    import torch

    from casesim.nnunet import compiling
    from casesim.training.trainer import CaseTrainer

    compiling.use_compiler_cache(options["cache"])
    trainer = CaseTrainer(
        plans_json,
        task.configuration,
        "all",
        dataset(),
        torch.device(common.device()),
    )
    trainer.initialize(
        {
            "epochs": EPOCHS,
            "iterations_per_epoch": 250,
            "initial_lr": LEARNING_RATE,
        },
        0,
        initial_weights(plans_json, task),
        precision=options.get("precision", "float16"),
        compiler=options.get("compiler", "inductor"),
    )
    trainer.begin_epoch(0)
    return trainer


def work(side: str, task: Task, folder: Path, options: Mapping[str, Any]) -> None:
    """A worker: builds its side, trains a little, and then does what it is told."""
    began = time.perf_counter()
    import torch

    from casesim.nnunet.files import read_json

    on_gpu = common.device() == "cuda"
    if on_gpu:
        import torch._inductor.compile_fx

    def synchronize() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    imported = time.perf_counter()
    if on_gpu:
        torch.zeros(1, device="cuda")
    started = synchronize()
    plans_json = read_json(options["plans"])
    trainer: Any
    if side.startswith("nnunet"):
        trainer = build_nnunet(plans_json, task, folder)
    else:
        trainer = build_ours(plans_json, task, options)
    trainer.network.train()
    built = synchronize()
    plan = trainer.configuration_manager.configuration
    batches = make_batches(
        plan, trainer._get_deep_supervision_scales(), options["batches"]
    )
    made = synchronize()
    losses = []
    first = made
    for i in range(options["first"]):
        losses.append(trainer.train_step(batches[i % len(batches)])["loss"])
        if i == 0:
            first = synchronize()
        elif i == FEW - 1:
            few = synchronize()
    answer(
        {
            "losses": [float(loss) for loss in losses],
            "plan": {
                "patch_size": plan["patch_size"],
                "batch_size": plan["batch_size"],
                "architecture": plan["architecture"],
            },
            "import": imported - began,
            "cuda": started - imported,
            "build": built - started,
            "first": first - made,
            "few": few - first,
            "memory": torch.cuda.max_memory_reserved() / 2**30 if on_gpu else 0.0,
        }
    )
    for line in sys.stdin:
        before = synchronize()
        number = int(line)
        for i in range(number):
            trainer.train_step(batches[i % len(batches)])
        answer({"seconds": (synchronize() - before) / number})


def answer(content: Mapping[str, Any]) -> None:
    print(_RESULT + json.dumps(content), flush=True)


class Worker:
    """The process of one side."""

    def __init__(
        self, side: str, task: Task, folder: Path, options: Mapping[str, Any]
    ) -> None:
        self.side = side
        self.task = task
        work_folder = folder / f"{side}-{task.configuration}-{task.batch}"
        work_folder.mkdir(exist_ok=True)
        self._log = (work_folder / "log").open("w+")
        command = [
            *(sys.executable, "-m", "benchmarks.training", "--worker", side),
            *("--settings", str(task), "--folder", str(work_folder)),
            *("--options", json.dumps(dict(options))),
        ]
        self._process = subprocess.Popen(
            command,
            cwd=common.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_RESULT):
                content: dict[str, Any] = json.loads(line.removeprefix(_RESULT))
                return content
        self._log.seek(0)
        sys.exit(f"{self.side} {self.task} ended:\n{self._log.read()[-6000:]}")

    def go(self, iterations: int) -> None:
        """Begin with so many iterations."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{iterations}\n")
        self._process.stdin.flush()

    def time(self, iterations: int) -> float:
        """Seconds of an iteration, mean of `iterations`."""
        self.go(iterations)
        return float(self.read()["seconds"])

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def spread(values: Sequence[float], unit: float = 1000.0) -> str:
    """Median, and the range in brackets."""
    return (
        f"{unit * statistics.median(values):.1f} "
        f"({unit * min(values):.1f} to {unit * max(values):.1f})"
    )


def smooth(losses: Sequence[float], width: int = 10) -> list[float]:
    """Means of ten losses: one batch's is noise."""
    return [
        statistics.mean(losses[i : i + width]) for i in range(0, len(losses), width)
    ]


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of the smoothed losses."""
    return max(abs(a - b) for a, b in zip(smooth(first), smooth(second), strict=True))


@dataclass(frozen=True)
class Outcome:
    """What the three sides of a task said first, and their seconds turn by turn."""

    task: Task
    said: dict[str, dict[str, Any]]
    seconds: dict[str, list[float]]

    @property
    def ratios(self) -> list[float]:
        """nnU-Net's / ours, turn by turn."""
        pairs = zip(self.seconds["ours"], self.seconds["nnunet"], strict=True)
        return [theirs / ours for ours, theirs in pairs]


def measure(
    tasks: Sequence[Task],
    shape: Sequence[int],
    folder: Path,
    losses: int,
    iterations: int,
    turns: int,
) -> list[Outcome]:
    """All tasks: their workers compile at once, and are timed one by one."""
    from casesim.nnunet.files import write_json

    workers: dict[Task, dict[str, Worker]] = {}
    for task in tasks:
        write_json(folder / f"{task.name}.json", plans(task, shape))
        options = worker_options(folder, task, losses)
        workers[task] = {side: Worker(side, task, folder, options) for side in SIDES}
    said = {
        task: {side: worker.read() for side, worker in of_task.items()}
        for task, of_task in workers.items()
    }
    outcomes = []
    for task, of_task in workers.items():
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(turns):
            order = list(of_task.items())
            for side, worker in order if turn % 2 else order[::-1]:
                seconds[side].append(worker.time(iterations))
        outcomes.append(Outcome(task, said[task], seconds))
        print(
            task, {side: spread(times) for side, times in seconds.items()}, flush=True
        )
        for worker in of_task.values():
            worker.end()
    return outcomes


def worker_options(folder: Path, task: Task, first: int) -> dict[str, Any]:
    return {
        "plans": str(folder / f"{task.name}.json"),
        "cache": str(folder / "compiled"),
        "first": first,
        "batches": DISTINCT_BATCHES,
    }


def start_again(folder: Path, task: Task) -> dict[str, Any]:
    """The start of our side alone, with what the compiler has left."""
    worker = Worker("ours", task, folder, worker_options(folder, task, FEW))
    said = worker.read()
    worker.end()
    return said


def measure_slots(folder: Path, task: Task, iterations: int) -> dict[int, float]:
    """Iterations a second of several trainings on one device, together."""
    options = worker_options(folder, task, FEW)
    workers = []
    for number in range(max(SLOTS)):
        place = folder / f"slot-{number}"
        place.mkdir()
        workers.append(Worker("ours", task, place, options))
    for worker in workers:
        worker.read()
    found = {}
    for number in SLOTS:
        some = workers[:number]
        for worker in some:
            worker.go(iterations)
        found[number] = sum(1 / float(worker.read()["seconds"]) for worker in some)
    for worker in workers:
        worker.end()
    return found


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
        folder / f"model-{options['host']}",
        {
            "epochs": options["epochs"],
            "iterations_per_epoch": options["iterations"],
            "initial_lr": 0.001,
        },
        seed=0,
        threads=options["cores"],
        device=common.device(),
        compile_network=common.device() == "cuda",
        compiler_cache=folder / "compiled",
    )


def run_job(
    folder: Path, task: Task, cores: int, host: bool, iterations: int
) -> dict[str, float]:
    """Seconds to the first iteration, and of one iteration of the last epoch."""
    options = {"host": host, "cores": cores, "epochs": 3, "iterations": iterations}
    command = [
        *(sys.executable, "-m", "benchmarks.training", "--worker", "job"),
        *("--settings", str(task), "--folder", str(folder)),
        *("--options", json.dumps(options)),
    ]
    done = subprocess.run(
        command, cwd=common.ROOT, capture_output=True, text=True, check=False
    )
    ready = re.search(r"ready after ([\d.]+) s", done.stdout)
    each = re.findall(r"^epoch .*, ([\d.]+) s", done.stdout, re.M)
    if ready is None or len(each) < 3:
        sys.exit(f"the fine-tune ended:\n{(done.stdout + done.stderr)[-6000:]}")
    times = [float(value) for value in each]
    return {
        "ready": float(ready[1]),
        "first_epoch": times[0],
        "last_epoch": times[-1],
        "iteration": times[-1] / iterations,
    }


def report(outcomes: Sequence[Outcome]) -> str:
    """Iterations of all tasks, side by side."""
    rows = []
    for outcome in outcomes:
        plan = outcome.said["ours"]["plan"]
        losses = {side: said["losses"] for side, said in outcome.said.items()}
        rows.append(
            [
                describe(outcome.task, plan),
                spread(outcome.seconds["ours"]),
                spread(outcome.seconds["nnunet"] + outcome.seconds["nnunet-again"]),
                f"{statistics.median(outcome.ratios):.2f} "
                f"({min(outcome.ratios):.2f} to {max(outcome.ratios):.2f})",
                f"{outcome.said['ours']['memory']:.1f}, "
                f"{outcome.said['nnunet']['memory']:.1f}",
                f"{distance(losses['ours'], losses['nnunet']):.4f}",
                f"{distance(losses['nnunet'], losses['nnunet-again']):.4f}",
            ]
        )
    header = [
        "plan",
        "ours (ms)",
        "nnU-Net (ms)",
        "nnU-Net / ours",
        "memory: ours, nnU-Net (GB)",
        "loss: ours from nnU-Net's",
        "nnU-Net's from its own",
    ]
    return (
        "One iteration: median (range) in turns. Losses: the largest difference of "
        "means of ten, over the first "
        f"{len(outcomes[0].said['ours']['losses'])} iterations.\n\n"
        f"{common.table(header, rows)}"
    )


def describe(task: Task, plan: Mapping[str, Any]) -> str:
    patch = " x ".join(map(str, plan["patch_size"]))
    return f"{task.configuration}, {patch}, batch {plan['batch_size']}"


def report_start(task: Task, said: Mapping[str, Any]) -> str:
    parts = [
        ("imports, which the warm process has done", said["import"]),
        ("CUDA", said["cuda"]),
        ("network", said["build"]),
        ("first iteration", said["first"]),
        (f"the next {FEW - 1}, one of which is recorded", said["few"]),
    ]
    rows = [[name, f"{seconds:.2f}"] for name, seconds in parts]
    rows.append(["all but the imports", f"{sum(s for _, s in parts[1:]):.2f}"])
    return (
        f"Start of a training with a warm compiler cache, {task}:\n\n"
        f"{common.table(['part', 's'], rows)}"
    )


def report_slots(task: Task, found: Mapping[int, float]) -> str:
    rows = [
        [number, f"{rate:.0f}", f"{rate / found[SLOTS[0]]:.2f}"]
        for number, rate in found.items()
    ]
    header = ["trainings at once", "iterations a second, together", "of one's"]
    return f"Several trainings on one card, {task}:\n\n{common.table(header, rows)}"


def report_jobs(cores: int, jobs: Mapping[str, Mapping[str, float]]) -> str:
    header = [
        "batches",
        "ready (s)",
        "first epoch (s)",
        "last epoch (s)",
        "an iteration (ms)",
    ]
    rows = [
        [
            name,
            f"{job['ready']:.1f}",
            f"{job['first_epoch']:.1f}",
            f"{job['last_epoch']:.2f}",
            f"{1000 * job['iteration']:.1f}",
        ]
        for name, job in jobs.items()
    ]
    return f"A whole fine-tune on {cores} cores:\n\n{common.table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--settings",
        nargs="+",
        type=Task.parse,
        default=[Task("2d", None), Task("3d_fullres", None), Task("2d", 12)],
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=SHAPE, help="of a case (z, y, x)"
    )
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--losses", type=int, default=100, help="iterations compared")
    parser.add_argument("--cores", type=int, default=8, help="of the whole fine-tune")
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    for internal, kind in (("worker", str), ("folder", Path), ("options", json.loads)):
        parser.add_argument(f"--{internal}", type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tasks = arguments.settings
    if arguments.worker == "job":
        work_job(arguments.folder, tasks[0], arguments.options)
        return
    if arguments.worker:
        work(arguments.worker, tasks[0], arguments.folder, arguments.options)
        return
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder = Path(name)
        outcomes = measure(
            tasks,
            arguments.shape,
            folder,
            arguments.losses,
            arguments.iterations,
            arguments.turns,
        )
        sections = [report(outcomes)]
        print(sections[-1], flush=True)
        sections.append(report_start(tasks[0], start_again(folder, tasks[0])))
        print(sections[-1], flush=True)
        slots = measure_slots(folder, tasks[-1], 10 * arguments.iterations)
        sections.append(report_slots(tasks[-1], slots))
        print(sections[-1], flush=True)
        make_cases(folder, tasks[0], arguments.shape)
        jobs = {
            names: run_job(folder, tasks[0], arguments.cores, host, number)
            for names, host, number in (
                ("made on the device", False, arguments.iterations),
                ("nnU-Net's transforms, loading processes", True, 20),
            )
        }
        sections.append(report_jobs(arguments.cores, jobs))
    common.publish(
        f"Training on {common.device_name()}", "\n\n".join(sections), arguments.output
    )


if __name__ == "__main__":
    main()
