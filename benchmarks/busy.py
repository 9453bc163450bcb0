"""One training iteration beside other programs that keep the cores busy, and alone.

    python -m benchmarks.busy [--load N] [--threads N] [--iterations N]
        [--output docs/benchmarks/busy.md]

A U-Net of nnU-Net's on patches of 32 x 32, in batches of 16: so small that its threads
meet thousands of times a second. Without a GPU a training has one thread
(`processes.places`); beside it are several threads that wait as the warm process tells
them to (`service.QUIET_THREADS`), and several with OpenMP's own way of waiting. Each
measurement is a process of its own; the load is that many endless loops. At most 4
times as slow at load 4 as alone is the goal.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import setting as common

OURS, WAITING, SPINNING = (
    "one thread, as trainings run",
    "threads that wait",
    "threads that spin",
)
# Of one measurement: with spinning threads a single iteration can take ten seconds.
_LONGEST_SECONDS = 60.0


def iterations(number: int, threads: int) -> list[float]:
    """Seconds of each training iteration in this process, after three that do not
    count."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = PlainConvUNet(
        input_channels=4,
        n_stages=4,
        features_per_stage=(32, 64, 128, 256),
        conv_op=torch.nn.Conv2d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2),
        n_conv_per_stage=2,
        num_classes=4,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=torch.nn.LeakyReLU,
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.99, nesterov=True)
    data = torch.randn(16, 4, 32, 32)
    target = torch.randint(0, 4, (16, 32, 32))
    seconds: list[float] = []
    began = time.perf_counter()
    for _ in range(number + 3):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(data), target)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        if time.perf_counter() - began > _LONGEST_SECONDS:
            break
    return seconds[3:] or seconds[-1:]


def measure(quiet: bool, number: int, threads: int) -> float:
    """Median seconds of an iteration, in a process with that environment."""
    from casesim.processes.service import KEEP_FREED_MEMORY, QUIET_THREADS

    environment = {
        key: value for key, value in os.environ.items() if key not in QUIET_THREADS
    }
    environment |= KEEP_FREED_MEMORY | (QUIET_THREADS if quiet else {})
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "benchmarks.busy", "--worker"]
    command += ["--iterations", str(number), "--threads", str(threads)]
    said = subprocess.run(
        command,
        env=environment,
        cwd=common.ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return statistics.median(float(word) for word in said.split())


@contextmanager
def load(number: int) -> Iterator[None]:
    """That many processes that do nothing but compute."""
    code = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(code) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def report(
    seconds: dict[str, tuple[float, float]], number: int, before: float | None
) -> str:
    """`seconds` are medians alone and beside `number` loops, by name."""
    rows = [
        [name, f"{1000 * alone:.0f}", f"{1000 * beside:.0f}", f"{beside / alone:.1f}"]
        for name, (alone, beside) in seconds.items()
    ]
    header = ["", "alone (ms)", f"beside {number} loops (ms)", "times as slow"]
    text = common.table(header, rows)
    if before is not None and before > 0.5:
        text += (
            f"\n\nThe machine was busy before this began (load average {before:.1f}): "
            '"alone" is not.'
        )
    return text


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", type=int, default=4, help="loops beside the training")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args(given)
    number, threads = arguments.iterations, arguments.threads
    if arguments.worker:
        print(*iterations(number, threads))
        return
    from casesim.processes import places

    before = os.getloadavg()[0]
    found: dict[str, tuple[float, float]] = {}
    for name, quiet, own in (
        (OURS, True, places.THREADS),
        (f"{threads} {WAITING}", True, threads),
        (f"{threads} {SPINNING}", False, threads),
    ):
        alone = measure(quiet, number, own)
        with load(arguments.load):
            found[name] = alone, measure(quiet, number, own)
    text = report(found, arguments.load, before)
    text = f"Patch 32 x 32, batch 16, 4 stages.\n\n{text}"
    common.publish("Training beside other programs", text, arguments.output)


if __name__ == "__main__":
    main()
