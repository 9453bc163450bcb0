"""Our sliding-window prediction and nnU-Net's, on the same network and cases.

    python -m benchmarks.predictor [--sizes demo real] [--repeats N] [--slices N]
        [--threads N] [--output docs/benchmarks/predictor.md]

Both sides run in this process, in turns, from a preprocessed case in memory to its
logits in memory: `sliding_window.predict_logits`, on a GPU compiled as for a matrix,
and `predict_logits_from_preprocessed_data` of `nnUNetPredictor`, with mirroring and
half-tile steps. The process has the memory
settings of the resident predictor (`service.KEEP_FREED_MEMORY`), for both. The
weights are those of a start, which take as long as trained ones. `demo` is a case of
the embedded cohort; `real` has the patch and extent of brain-tumour patients. A CPU
gets 8 stages, more than nnU-Net plans, and the middle slices only (`--slices`): each
slice costs the same.
"""

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import setting as common

if TYPE_CHECKING:
    import numpy as np

    from casesim.nnunet import checkpoints


@dataclass(frozen=True)
class Comparison:
    """Seconds of each repeat, and how far the two results are apart."""

    ours: list[float]
    theirs: list[float]
    labels_that_differ: int
    voxels: int

    @property
    def ratios(self) -> list[float]:
        """Theirs / ours, repeat by repeat: neighbours share what else goes on."""
        return [b / a for a, b in zip(self.ours, self.theirs, strict=True)]


def untrained_model(setting: common.Setting) -> "checkpoints.Model":
    """The network of the plans, with random weights, as the workflow loads it."""
    import torch

    from casesim.nnunet import checkpoints, planning
    from casesim.nnunet.files import read_json

    torch.manual_seed(0)
    plans_manager, configuration = planning.load_plans(
        setting.plans, common.CONFIGURATION
    )
    dataset = read_json(setting.dataset)
    network = checkpoints.build_network(
        plans_manager, configuration, dataset, deep_supervision=True, initialise=True
    )
    checkpoint = checkpoints.save_model(
        setting.model("untrained"),
        network.state_dict(),
        plans_manager.plans,
        dataset,
        common.CONFIGURATION,
        (0, 1),
    )
    return checkpoints.load_model(checkpoint, common.device())


def nnunet_predictor(model: "checkpoints.Model") -> Any:
    """nnU-Net's predictor with a copy of the network: ours may change its form."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = next(model.network.parameters()).device
    theirs = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=True,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    theirs.manual_initialization(
        copy.deepcopy(model.network),
        model.plans_manager,
        model.configuration_manager,
        [model.network.state_dict()],
        model.dataset_json,
        "nnUNetTrainer",
        model.allowed_mirroring_axes,
    )
    return theirs


def middle(data: "np.ndarray", slices: int | None) -> "np.ndarray":
    """The middle slices of a case (channel, z, y, x); all of them for None."""
    if slices is None or slices >= data.shape[1]:
        return data
    first = (data.shape[1] - slices) // 2
    return data[:, first : first + slices]


def compare(
    model: "checkpoints.Model", data: "np.ndarray", repeats: int, threads: int
) -> Comparison:
    """Time both in turns, after one turn that does not count."""
    import torch

    from casesim.inference import sliding_window

    torch.set_num_threads(threads)
    theirs = nnunet_predictor(model)
    tensor = torch.as_tensor(data)

    def predict_ours() -> torch.Tensor:
        logits = sliding_window.predict_logits(
            model, data, compiled=common.device() == "cuda"
        )
        return logits.cpu()

    def predict_theirs() -> torch.Tensor:
        return theirs.predict_logits_from_preprocessed_data(tensor).cpu()

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    labels = {}
    for turn in range(repeats + 1):
        sides = [("ours", predict_ours), ("theirs", predict_theirs)]
        for name, predict in sides if turn % 2 else sides[::-1]:
            seconds, logits = timed(predict)
            labels[name] = logits.argmax(0)
            if turn:
                times[name].append(seconds)
    differ = int((labels["ours"] != labels["theirs"]).sum())
    return Comparison(times["ours"], times["theirs"], differ, labels["ours"].numel())


def timed(predict: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call whose result is on the host, and the result."""
    started = time.perf_counter()
    result = predict()
    return time.perf_counter() - started, result


def spread(values: list[float]) -> str:
    """Median, and the range in brackets."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"


def report(comparison: Comparison, shape: tuple[int, ...], network: str) -> str:
    ours, theirs = comparison.ours, comparison.theirs
    rows = [
        ["this workflow", spread(ours)],
        ["nnU-Net", spread(theirs)],
        ["nnU-Net / this workflow", spread(comparison.ratios)],
    ]
    header = ["", f"seconds: median (range) of {len(ours)} in turns"]
    return (
        f"{network}; a case of {' x '.join(map(str, shape))} voxels.\n\n"
        f"{common.table(header, rows)}\n\n{comparison.labels_that_differ:,} of "
        f"{comparison.voxels:,} voxels have another label (random weights: many "
        "classes are nearly as likely)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", nargs="+", choices=common.SIZES, default=list(common.SIZES)
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--slices", type=int, default=None, help="of the real size; CPU: 12, CUDA: all"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    from casesim.nnunet import preprocessing
    from casesim.processes import service

    if not service.KEEP_FREED_MEMORY.items() <= os.environ.items():
        # They are read when a process starts.
        environment = {**os.environ, **service.KEEP_FREED_MEMORY}
        os.execve(sys.executable, sys.orig_argv, environment)
    slices = arguments.slices
    if slices is None and common.device() == "cpu":
        slices = 12
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="predictor-") as folder:
            setting = common.Setting(Path(folder), arguments.threads)
            case = common.prepare_cases(setting, common.SIZES[size])[0]
            common.preprocess(setting, [case])
            data, _, _ = preprocessing.load_preprocessed(setting.stem(case))
            part = middle(data, slices if size == "real" else None)
            if size == "real" and common.device() == "cpu":
                common.set_stages(setting, common.REAL_STAGES)
            model = untrained_model(setting)
            found = compare(model, part, arguments.repeats, arguments.threads)
            network = common.describe_network(setting.plan)
            text = report(
                found, part.shape[1:], f"{network}; {arguments.threads} threads"
            )
            if common.device() == "cuda":
                text += (
                    "\n\nOurs is compiled (`inference.compile: true`; the default is "
                    "not)."
                )
            if part.shape != data.shape:
                text += (
                    f"\n\nThe whole case has {data.shape[1]} slices; these are the "
                    f"{part.shape[1]} in the middle."
                )
        where = "" if common.device() == "cpu" else f" on {common.device_name()}"
        common.publish(f"Prediction, {size} size{where}", text, arguments.output)


if __name__ == "__main__":
    main()
