"""A small study that is disturbed, and the same one left in peace.

`make reliability` runs these tests in full, `make test` a sample of each. What was
tried is counted, and printed at the end; RELIABILITY_REPORT names a file that gets the
counts. RELIABILITY_KEPT names a folder that keeps the undisturbed study between calls.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.conftest import tiny_cohort as tiny_cohort

from workflow.conftest import Checkout, succeeded

FULL = os.environ.get("RELIABILITY") == "full"
SEED = int(os.environ.get("RELIABILITY_SEED", "0"))

# Every kind of job, and as few of each as can be.
TINY: dict[str, Any] = {
    "cohort": {
        "pool": 4,
        "train_cases": 4,
        "held_out": 1,
        "phantom": {
            "shape": [16, 32, 32],
            "defects": {"swapped_labels": 1, "shifted_label": 0, "other_patient": 0},
            "controls": {"no_enhancement": 0},
        },
    },
    "training": {
        "checkpoint_minutes": 0,
        "base": {"epochs": 3, "iterations_per_epoch": 5},
        "finetune": {"epochs": 2, "iterations_per_epoch": 4},
    },
    "augmentation": {"copies": 1},
    "clusters": {"min_size": 1, "max_removed_share": 0.4},
    "stability": {"refits": 0},
    "pruning": {"random_arms": 1},
}
MATRIX = "results/similarity/matrix.tsv"
COMPARISON = "results/pruning/comparison.tsv"
TARGETS = (MATRIX, COMPARISON)

_counted: Counter[str] = Counter()


@pytest.fixture
def count() -> Counter[str]:
    """What these tests have tried: to be added to when it has come out well."""
    return _counted


def tables(checkout: Checkout) -> dict[str, bytes]:
    """What must not depend on any disturbance, byte by byte."""
    return {name: checkout.path(name).read_bytes() for name in TARGETS}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study, run once from its beginning to its end.

    It is kept for the next call in the folder that RELIABILITY_KEPT names.
    """
    kept = os.environ.get("RELIABILITY_KEPT")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("undisturbed")
    checkout = Checkout(folder, TINY)
    succeeded(checkout.run(*TARGETS))
    return checkout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("reliability")


@pytest.fixture(scope="session", autouse=True)
def report() -> Iterator[None]:
    began = time.monotonic()
    yield
    if path := os.environ.get("RELIABILITY_REPORT"):
        _counted["seconds of these tests"] = round(time.monotonic() - began)
        content = {"seed": SEED, **dict(sorted(_counted.items()))}
        Path(path).write_text(json.dumps(content, indent=2) + "\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _counted:
        terminalreporter.section("what was tried")
        for name, number in sorted(_counted.items()):
            terminalreporter.write_line(f"{number:6} {name}")
