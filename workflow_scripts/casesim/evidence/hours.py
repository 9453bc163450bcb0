"""What a score cost, in hours on a device, by what trainings and cells have noted."""

import json
import math
from collections.abc import Mapping
from pathlib import Path


def spent(
    trainings: Mapping[str, str], cells: Mapping[str, int], folder: Path
) -> float:
    """Hours of some trainings and cells.

    A job that went on from a checkpoint, or found its model finished, was shorter than
    its training: then the model's own epochs count.

    Args:
        trainings: file of Snakemake's `benchmark` to model folder.
        cells: score file of one cell of a model to how many cells it has, which cost
            about the same.
        folder: what all these paths are relative to.

    Returns:
        NaN where a training has noted nothing (one of an older run, say).
    """
    seconds = 0.0
    for benchmark, model in trainings.items():
        noted = [*_of_job(folder / benchmark), *_of_epochs(folder / model)]
        seconds += max(noted, default=math.nan)
    for path, number in cells.items():
        record = json.loads((folder / path).read_text(encoding="utf-8"))
        seconds += number * sum(record["seconds"].values())
    return seconds / 3600


def _of_job(benchmark: Path) -> list[float]:
    """Wall-clock seconds of the last job; nothing where there is no note."""
    try:
        names, *rows = benchmark.read_text(encoding="utf-8").splitlines()
        return [float(rows[-1].split("\t")[names.split("\t").index("s")])]
    except (OSError, ValueError, IndexError):
        return []


def _of_epochs(model: Path) -> list[float]:
    """Seconds of all epochs; of a cascade, of both stages."""
    stages = [model / "progress.json", *sorted(model.glob("*/progress.json"))]
    found = [
        sum(epoch["seconds"] for epoch in json.loads(path.read_text(encoding="utf-8")))
        for path in stages
        if path.is_file()
    ]
    return [float(sum(found))] if found else []
