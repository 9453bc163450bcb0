"""What a number of threads costs: a training iteration and a cell of the demo's size.

    python -m benchmarks.threads [--threads 1 2 ...] [--iterations N] [--repeats N]
        [--output docs/benchmarks/threads.md]

Without a GPU each job has one thread (`casesim.processes.places`), and the cores are
used by several jobs. That is right if more threads need more of the processors in all
for the same work: then so many jobs of one thread do more in the same time. Seconds of
the processors are printed beside those of the clock, since they hardly depend on what
else runs. Every measurement is a process of its own, with the environment of trainings.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import setting as common

Seconds = tuple[float, float]
"""Of the clock and of the processors."""

WORK = ("training iteration", "cell")


def timed(work: Callable[[], object]) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def measure(setting: common.Setting, case: str, number: int) -> dict[str, Seconds]:
    """Seconds of an iteration and of a cell in this process, on `setting.threads`."""
    import torch

    from casesim.inference import sliding_window
    from casesim.nnunet import checkpoints, preprocessing

    stems = [setting.stem(case)]

    def train(name: str, iterations: int) -> Path:
        return common.train(setting, f"{name}-{setting.threads}", stems, iterations)

    checkpoint = train("first", 2)
    # What a training takes beside its iterations is in both.
    few = timed(lambda: train("few", 2))
    many = timed(lambda: train("many", 2 + number))
    model = checkpoints.load_model(checkpoint, torch.device("cpu"))
    data, _, _ = preprocessing.load_preprocessed(stems[0])
    torch.set_num_threads(setting.threads)
    sliding_window.predict_logits(model, data)
    return {
        WORK[0]: ((many[0] - few[0]) / number, (many[1] - few[1]) / number),
        WORK[1]: timed(lambda: sliding_window.predict_logits(model, data)),
    }


def in_process_of_its_own(work: Path, threads: int, number: int) -> dict[str, Seconds]:
    """`measure` with the environment that the warm process gives trainings."""
    from casesim.processes.service import KEEP_FREED_MEMORY, QUIET_THREADS

    command = [sys.executable, "-m", "benchmarks.threads", "--worker", str(work)]
    command += ["--threads", str(threads), "--iterations", str(number)]
    environment = os.environ | KEEP_FREED_MEMORY | QUIET_THREADS
    environment.pop("OMP_NUM_THREADS", None)
    said = subprocess.run(
        command, env=environment, cwd=common.ROOT, check=True, capture_output=True
    ).stdout
    return {
        name: tuple(pair) for name, pair in json.loads(said.splitlines()[-1]).items()
    }


def report(found: Mapping[int, Sequence[Mapping[str, Seconds]]]) -> str:
    """Medians by the number of threads; the ratio is of processor seconds."""
    rows = []
    for name in WORK:
        alone: float | None = None
        for threads, measured in found.items():
            clock, processor = (
                statistics.median(each[name][i] for each in measured) for i in (0, 1)
            )
            alone = alone or processor
            rows.append(
                [
                    *(name, threads, f"{1000 * clock:.0f}", f"{1000 * processor:.0f}"),
                    f"{processor / alone:.2f}",
                ]
            )
    first = next(iter(found))
    header = ["", "threads", "clock (ms)", "processors (ms)", f"/ with {first}"]
    return common.table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        setting = common.Setting(arguments.worker, arguments.threads[0])
        found = measure(setting, "phantom_001", arguments.iterations)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(prefix="casesim-threads-") as folder:
        setting = common.Setting(Path(folder), 1)
        cases = common.prepare_cases(setting, common.SIZES["demo"])
        common.use_batches_of_the_demo(setting)
        common.preprocess(setting, cases[:1])
        loads = [os.getloadavg()[0]]
        results: dict[int, list[dict[str, Seconds]]] = {
            n: [] for n in arguments.threads
        }
        for _ in range(arguments.repeats):
            for threads, measured in results.items():
                measured.append(
                    in_process_of_its_own(setting.work, threads, arguments.iterations)
                )
        loads.append(os.getloadavg()[0])
        network = common.describe_network(setting.plan)
    common.publish(
        "Threads of a job",
        f"{network}; median of {arguments.repeats} in turns. Load of the machine "
        f"before and after: {loads[0]:.1f}, {loads[1]:.1f}.\n\n{report(results)}",
        arguments.output,
    )


if __name__ == "__main__":
    main()
