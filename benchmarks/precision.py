"""Dice of models that are trained in float16, as nnU-Net's are, and in bfloat16.

    python -m benchmarks.precision [--size demo|real] [--seeds N] [--iterations N]
        [--cases N] [--held-out N] [--threads N]
        [--output docs/benchmarks/precision.md]

Base models of the embedded cohort, of the demo's volumes or of the extent of
brain-tumour patients, from the same start weights and on the same batches for each
seed, segment cases that none of them was trained on. What the precision changes is
shown beside what another seed changes: a training amplifies any rounding. Needs a GPU:
on a CPU trainings are in single precision, so that both are the same there.
"""

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import setting as common
from benchmarks.storage import dice

PRECISIONS = ("float16", "bfloat16")


@dataclass(frozen=True)
class Pair:
    """Dice of each held-out case, mean over labels, in both precisions, of one seed."""

    float16: list[float]
    bfloat16: list[float]

    @property
    def differences(self) -> list[float]:
        """bfloat16 less float16, case by case."""
        pairs = zip(self.bfloat16, self.float16, strict=True)
        return [half - usual for half, usual in pairs]


def measure(
    setting: common.Setting,
    cases: Sequence[str],
    held_out: Sequence[str],
    iterations: int,
    seed: int,
) -> Pair:
    """Train with both precisions, and segment the held-out cases."""
    found = {}
    for precision in PRECISIONS:
        checkpoint = common.train(
            setting,
            f"{precision}-{seed}",
            [setting.stem(case) for case in cases],
            iterations,
            seed=seed,
            precision=precision,
        )
        found[precision] = [
            statistics.fmean(dice(setting, checkpoint, case)) for case in held_out
        ]
    return Pair(**found)


def report(pairs: Sequence[Pair]) -> str:
    """Means by seed, and what a precision and what a seed changes."""
    rows = [
        [
            seed,
            f"{statistics.fmean(pair.float16):.4f}",
            f"{statistics.fmean(pair.bfloat16):.4f}",
            f"{statistics.fmean(pair.differences):+.4f}",
            f"{max(map(abs, pair.differences)):.4f}",
        ]
        for seed, pair in enumerate(pairs)
    ]
    header = ["seed", *PRECISIONS, "difference", "largest of a case"]
    between = [
        abs(statistics.fmean(first.float16) - statistics.fmean(second.float16))
        for first, second in itertools.combinations(pairs, 2)
    ]
    within = [abs(statistics.fmean(pair.differences)) for pair in pairs]
    text = common.table(header, rows)
    if between:
        text += (
            "\n\nMean Dice of two trainings that differ in the precision: "
            f"{statistics.fmean(within):.4f} apart on average; in the seed "
            f"(both float16): {statistics.fmean(between):.4f}."
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=common.SIZES, default="demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=12, help="that are trained on")
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    volumes = common.SIZES[arguments.size]
    with tempfile.TemporaryDirectory(prefix="precision-") as folder:
        setting = common.Setting(Path(folder), arguments.threads)
        number = arguments.cases + arguments.held_out
        size = common.Size(number, volumes.shape, volumes.spacing)
        names = common.prepare_cases(setting, size)
        common.preprocess(setting, names)
        pairs = [
            measure(
                setting,
                names[: arguments.cases],
                names[arguments.cases :],
                arguments.iterations,
                seed,
            )
            for seed in range(arguments.seeds)
        ]
        network = common.describe_network(setting.plan)
    common.publish(
        f"Precision of trainings, {arguments.size} size on {common.device_name()}",
        f"{network}; {arguments.iterations} iterations on {arguments.cases} cases, "
        f"{arguments.held_out} held out; mean Dice over labels and cases.\n\n"
        f"{report(pairs)}",
        arguments.output,
    )


if __name__ == "__main__":
    main()
