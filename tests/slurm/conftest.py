"""The cluster of the tests, and runs of the workflow on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workflow.conftest import Checkout

from .cluster import Cluster, why_not

FASTPOLL = Path(__file__).with_name("fastpoll.py")
# Everything else is the profile's.
FOR_TESTS = [
    *("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1"),
    "--slurm-keep-successful-logs",
    # As in the local run, whose matrix is the same to the last digit then: the nodes'
    # GPUs cannot compute.
    *("--max-threads", "1"),
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

    def command(self, *arguments: str, configs: Any = ()) -> list[str]:
        own = ["config/config.yaml", "test.yaml"] if self.config else []
        files = [*own, *configs]
        return [
            *(sys.executable, str(FASTPOLL), "--profile", "profiles/slurm"),
            *FOR_TESTS,
            *arguments,
            *(["--configfile", *files] if files else []),
        ]

    def run_locally(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The same folder, without the cluster."""
        return subprocess.run(
            Checkout.command(self, *arguments),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

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
