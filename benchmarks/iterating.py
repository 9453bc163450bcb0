"""One side of the training benchmark: a process that iterates when it is told to.

    python -m benchmarks.iterating ours|nnunet --settings 2d:12 --folder F
        --options JSON

It builds our trainer or nnU-Net's on a plan for brain tumours, iterates a little, says
what it has found, and reads numbers of iterations to be timed from its input. `Worker`
is the other end.
"""

import argparse
import json
import os
import subprocess
import sys
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
# Iterations that are timed as those after the first one.
FEW = 5
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
    """Our trainer, compiled on a GPU, ready for iterations.

    Options: `precision`, `compiler` (None for none); `recorded` False for an iteration
    that is not recorded, `rounded` to have the compiler keep every rounding to half
    precision, `as_written` to leave layout and normalisation to it as they are,
    `loss` for what of it is compiled if not as usual (`whole` or `none`), `search` for
    cuDNN's search of the fastest convolutions.
    """
    import torch

    from casesim.nnunet import compiling
    from casesim.training.trainer import CaseTrainer

    compiling.use_compiler_cache(options["cache"])
    set_switches(options)
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
    torch.backends.cudnn.benchmark = options.get("search", False)
    if trainer._step is not None and not options.get("recorded", True):
        trainer._step._record = False
    trainer.begin_epoch(0)
    return trainer


def set_switches(options: Mapping[str, Any]) -> None:
    """Change what of an iteration is compiled, and how, before a trainer is built."""
    import torch
    from torch._inductor import config

    from casesim.nnunet import compiling
    from casesim.training import step

    if "rounded" in options:
        config.emulate_precision_casts = options["rounded"]
    if options.get("as_written", False):
        setattr(compiling, "for_compiling", lambda network: network)  # noqa: B010
        form = torch.contiguous_format
        setattr(compiling, "channels_last", lambda network: form)  # noqa: B010
    if options.get("loss") == "whole":
        setattr(step, "compile_loss", compile_whole_loss)  # noqa: B010
    elif options.get("loss") == "none":
        setattr(step, "compile_loss", lambda loss, compiler: loss)  # noqa: B010


def compile_whole_loss(loss: Any, compiler: str) -> Any:
    """The loss in one graph, which the workflow does not do: see `compile_loss`."""
    import torch

    # As numbers of numpy they would be tensors to the compiler, and a graph cannot ask
    # whether a tensor is 0.
    loss.weight_factors = tuple(float(factor) for factor in loss.weight_factors)
    return torch.compile(loss, backend=compiler, dynamic=False)


def work(side: str, task: Task, folder: Path, options: Mapping[str, Any]) -> None:
    """A worker: builds its side, trains a little, and then does what it is told.

    nnU-Net's side is compiled on a GPU, unless the option `eager` is set. With the
    option `slots` it takes no more of the device's memory than one of so many has.
    """
    began = time.perf_counter()
    import torch

    from casesim.nnunet.files import read_json
    from casesim.processes import card_memory

    on_gpu = common.device() == "cuda"
    if on_gpu:
        import torch._inductor.compile_fx

    def synchronize() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    imported = time.perf_counter()
    if on_gpu:
        if options.get("slots", 1) > 1:
            card_memory.keep_to_part(options["slots"])
        torch.zeros(1, device="cuda")
    started = synchronize()
    plans_json = read_json(options["plans"])
    trainer: Any
    if side.startswith("nnunet"):
        if options.get("eager", False):
            os.environ["nnUNet_compile"] = "f"
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
    first = few = made
    for i in range(options["first"]):
        losses.append(trainer.train_step(batches[i % len(batches)])["loss"])
        if i == 0:
            first = synchronize()
        elif i == FEW - 1:
            few = synchronize()
    answer(
        {
            "losses": [float(loss) for loss in losses],
            "scale": trainer.grad_scaler.get_scale() if on_gpu else 1.0,
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
            *(sys.executable, "-m", "benchmarks.iterating", side),
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("--settings", type=Task.parse, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    given = parser.parse_args()
    work(given.side, given.settings, given.folder, given.options)


if __name__ == "__main__":
    main()
