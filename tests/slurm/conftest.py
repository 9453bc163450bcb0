"""The cluster of the tests, and runs of the workflow on it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from workflow import forked
from workflow.conftest import Checkout

from .cluster import Cluster, why_not

FASTPOLL = Path(__file__).with_name("fastpoll.py")
# Everything else is the profile's.
FOR_TESTS = [
    *("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1"),
    "--slurm-keep-successful-logs",
    # As many as a machine must have. The nodes' GPUs cannot compute: so jobs have one
    # thread, and the matrix is that of a local run to the last digit.
    *("--max-threads", "2"),
]
MATRIX = "results/similarity/matrix.tsv"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the cluster where there is none, and say why."""
    reason = why_not()
    if not reason:
        return
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@dataclass
class ClusterCheckout(Checkout):
    """A checkout whose runs go to the cluster, with the profile as users have it."""

    def arguments(self, *arguments: str, configs: Sequence[str] = ()) -> list[str]:
        _, _, *given = super().arguments(*arguments, configs=configs)
        return ["--profile", "profiles/slurm", *FOR_TESTS, *given]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(FASTPOLL), *self.arguments(*arguments)]

    def run(
        self, *arguments: str, configs: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        if "-n" in arguments:
            return super().run(*arguments, configs=configs)
        return subprocess.run(
            [
                sys.executable,
                str(FASTPOLL),
                *self.arguments(*arguments, configs=configs),
            ],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def run_locally(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The same folder, without the cluster."""
        return forked.run(Checkout.arguments(self, *arguments), self.folder)

    def log(self) -> str:
        """What a started run has said so far."""
        return self.path("started.log").read_text(errors="replace")


def matrix(checkout: Checkout) -> pd.DataFrame:
    return pd.read_csv(checkout.path(MATRIX), sep="\t", index_col=0)


def finish(process: "subprocess.Popen[bytes]", seconds: float = 300) -> int:
    """The exit status of a started run, which must end in time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        raise AssertionError(f"Snakemake still ran after {seconds} s") from None
