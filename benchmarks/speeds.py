"""How fast a device trains and segments: published, measured, of a finished run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.experiments import TRAININGS
from benchmarks.setting import ROOT
from casesim.errors import UserError

Range = tuple[float, float]

# Seconds of an epoch of 250 iterations, 2d, lowest and highest of three data sets (MSD
# Heart, Liver, Prostate), PyTorch 1.7.1 with mixed precision.
PUBLISHED_SOURCE = (
    "https://github.com/MIC-DKFZ/nnUNet/blob/"
    "13b2fa9870087effc0e2a21315265b0f0925aef6/documentation/expected_epoch_times.md"
)
PUBLISHED_ITERATIONS = 250
# What the benchmark has measured of this product and of nnU-Net, side by side.
OWN = ROOT / "docs/benchmarks/training.md"
OWN_PREDICTION = ROOT / "docs/benchmarks/predictor.md"
OURS, NNUNET = "ours, compiled", "nnU-Net, compiled"
PUBLISHED: dict[str, Range] = {
    "A100 40GB": (39.71, 42.21),
    "V100 32GB SXM3": (60.69, 68.88),
    "RTX 2080 Ti": (92.54, 102.81),
}


@dataclass(frozen=True)
class Speed:
    """How fast one device is.

    Attributes:
        name: of the device, or where the numbers come from.
        iteration: lowest and highest seconds of a training iteration, by schedule
            (`base`, `finetune`).
        outside: seconds of a job outside its iterations, by schedule.
        cells: seconds of one cell; several are several assumptions.
        network: seconds of one cell's passes through the network; None if unknown.
    """

    name: str
    iteration: Mapping[str, Range]
    outside: Mapping[str, float] = field(default_factory=dict)
    cells: Sequence[float] = ()
    network: float | None = None


def published() -> list[Speed]:
    """nnU-Net's own epoch times, as seconds of an iteration; cells are unknown."""
    return [
        Speed(
            name,
            dict.fromkeys(
                ("base", "finetune"),
                (low / PUBLISHED_ITERATIONS, high / PUBLISHED_ITERATIONS),
            ),
        )
        for name, (low, high) in PUBLISHED.items()
    ]


def own(page: str, prediction: str = "") -> list[Speed]:
    """The speeds of a 2d network on a card of ours, from the pages of the benchmarks.

    Ours, compiled and not, are those of whole fine-tunes, with their start. nnU-Net's
    has its batches at hand; of the plans in the table, that of the largest batch, which
    is nnU-Net's for brain tumours, and the fine-tunes'.

    Args:
        page: the text of `OWN`.
        prediction: the text of `OWN_PREDICTION`. What it says of the same card is the
            network's passes through a case of real size: ours compiled, and nnU-Net's.

    Raises:
        UserError: the page holds no such tables.
    """
    card = re.search(r"^## Training on (?:NVIDIA )?(.+)$", page, re.MULTILINE)
    if card is not None:
        sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
        page = "".join(s for s in sections if s.split("\n")[0].endswith(card[1]))
    number = r"[\d.]+ \(([\d.]+) to ([\d.]+)\)"
    rows = re.findall(
        rf"^\| 2d, [^|]*batch (\d+) \| {number} \| {number} \| {number} \|",
        page,
        re.MULTILINE,
    )
    jobs = re.findall(
        r"^\| made on the device, (.*?) \|.* ([\d.]+) \| ([\d.]+) \|$",
        page,
        re.MULTILINE,
    )
    if card is None or not rows or not jobs:
        raise UserError(f"{OWN} has no table of 2d trainings: benchmarks/training.py.")
    *_, low, high = max(rows, key=lambda row: int(row[0]))
    passes = _passes(prediction, card[1])

    def speed(what: str, bounds: tuple[str, str], outside: float) -> Speed:
        schedules = ("base", "finetune")
        seconds = (float(bounds[0]) / 1000, float(bounds[1]) / 1000)
        return Speed(
            f"{card[1]}, {what}",
            dict.fromkeys(schedules, seconds),
            dict.fromkeys(schedules, outside),
            network=passes.get(what),
        )

    return [
        *(
            speed(f"ours, {side}", (iteration, iteration), float(start))
            for side, iteration, start in jobs
        ),
        speed(NNUNET, (low, high), 0.0),
    ]


def _passes(page: str, card: str) -> dict[str, float]:
    """Seconds of a case of real size on a card, ours compiled and nnU-Net's."""
    sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    title = re.compile(rf"## Prediction, real size on (NVIDIA )?{re.escape(card)}\n")
    found: dict[str, float] = {}
    for section in filter(title.match, sections):
        if "Ours is compiled" not in section:
            continue
        for what, row in ((OURS, "this workflow"), (NNUNET, "nnU-Net")):
            if seconds := re.search(rf"^\| {row} \| ([\d.]+) ", section, re.MULTILINE):
                found[what] = float(seconds[1])
    return found


@dataclass(frozen=True)
class Training:
    """What the log of one training says: iterations, their seconds, the device."""

    iterations: int
    seconds: float
    device: str


def read_training_log(text: str) -> Training | None:
    """The epochs that a training's log lists; None if there is none."""
    head = re.search(
        r"epochs of (\d+) iterations, batches of \d+, ([^,]+), \d+ threads", text
    )
    epochs = re.findall(r"^epoch \d+ of \d+: .*?, ([\d.]+) s\b", text, re.MULTILINE)
    if head is None or not epochs:
        return None
    return Training(len(epochs) * int(head[1]), sum(map(float, epochs)), head[2])


def read_benchmark(path: Path) -> float:
    """Wall-clock seconds of a job, from the file of Snakemake's `benchmark`."""
    names, values = path.read_text(encoding="utf-8").splitlines()[:2]
    return float(dict(zip(names.split("\t"), values.split("\t"), strict=True))["s"])


def measured(results: Path) -> Speed:
    """The speed of a finished run.

    Iterations take the seconds of their epochs; what the job took beside them (start,
    reading cases, writing the model) is counted once for each job.

    Args:
        results: the run's folder of results; its logs lie beside it.

    Raises:
        UserError: there is no finished training of both schedules, or no cell.
    """
    found: dict[str, list[tuple[Training, float]]] = {"base": [], "finetune": []}
    for rule, schedule in TRAININGS.items():
        benchmarks = results / "benchmarks"
        one = benchmarks / f"{rule}.tsv"
        paths = [one] if one.is_file() else sorted((benchmarks / rule).glob("*.tsv"))
        for path in paths:
            name = path.relative_to(benchmarks).with_suffix(".log")
            log = results.parent / "logs" / name
            training = read_training_log(log.read_text()) if log.is_file() else None
            if training is not None:
                found[schedule].append((training, read_benchmark(path)))
    for schedule, trainings in found.items():
        if not trainings:
            raise UserError(
                f"{results} has no finished training with the schedule "
                f"training.{schedule}: its benchmarks, with the logs in "
                f"{results.parent / 'logs'}, are what is measured."
            )
    cells = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((results / "scores").rglob("*.json"))
    ]
    if not cells:
        raise UserError(f"{results}/scores has no score of a cell.")
    devices = sorted({str(cell["device"]) for cell in cells})
    iteration, outside = {}, {}
    for schedule, trainings in found.items():
        seconds = sum(training.seconds for training, _ in trainings)
        number = sum(training.iterations for training, _ in trainings)
        wall = sum(time for _, time in trainings)
        iteration[schedule] = (seconds / number, seconds / number)
        outside[schedule] = max(0.0, (wall - seconds) / len(trainings))
    of_cells = sum(sum(cell["seconds"].values()) for cell in cells) / len(cells)
    return Speed(", ".join(devices), iteration, outside, (of_cells,))
