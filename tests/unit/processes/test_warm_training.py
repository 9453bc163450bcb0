"""Jobs that the warm process does: the same, bit for bit, as done by themselves."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.conftest import TinyCohort

from casesim.processes import warm
from casesim.training.jobs import augment_case

from . import hosts
from .hosts import SECONDS, wait_until
from .warm_jobs import Host

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere jobs do their work themselves"
)


@pytest.fixture(scope="module")
def real() -> Iterator[Host]:
    with hosts.short_folder() as folder, closing(Host(folder)) as host:
        host.command = json.dumps(warm.COMMAND)
        yield host


def training(cohort: TinyCohort, model: str, **changes: Any) -> dict[str, Any]:
    values = {
        "cases": [str(stem) for stem in cohort.stems],
        "plans": str(cohort.plans),
        "dataset": str(cohort.dataset),
        "model": model,
        "training": {
            "configuration": "2d",
            "schedule": {"epochs": 2, "iterations_per_epoch": 3, "initial_lr": 0.01},
            "seed": 0,
            "storage": "float32",
        },
        "settings": {"checkpoint_minutes": 0, "validate_every": 2},
        "threads": 2,
        "gpu": 0,
        "memory_mb": 2000,
    }
    return values | changes


CHECKPOINT = Path("fold_all", "checkpoint_final.pth")
LATEST = Path("fold_all", "checkpoint_latest.pth")


def test_training_is_the_same_bit_for_bit(real: Host, tiny_cohort: TinyCohort) -> None:
    environment = real.environment
    for model, resident in (("warm", "1"), ("here", "0")):
        real.environment = environment | {"CASESIM_RESIDENT": resident}
        values = training(tiny_cohort, model)
        assert real.run("casesim.training.jobs:train", f"{model}.log", **values)[0] == 0
    real.environment = environment
    first, second = (real.folder / name / CHECKPOINT for name in ("warm", "here"))
    assert first.read_bytes() == second.read_bytes()
    losses = [
        re.findall(r"loss ([\d.]+)|pseudo-Dice .*? ([\d. ]+)$", real.log(name), re.M)
        for name in ("warm.log", "here.log")
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    # Of a job on a CPU, whatever it was given.
    assert "1 threads" in real.log("warm.log")


def long(cohort: TinyCohort, model: str) -> dict[str, Any]:
    values = training(cohort, model)
    values["training"]["schedule"] |= {"epochs": 2, "iterations_per_epoch": 10}
    values["settings"]["validate_every"] = 0
    return values


@pytest.mark.parametrize("how", ["told", "warm process killed"])
def test_training_goes_on_where_it_was(
    real: Host, tiny_cohort: TinyCohort, how: str
) -> None:
    values = long(tiny_cohort, f"model {how}")
    latest = real.folder / values["model"] / LATEST
    job = real.start("casesim.training.jobs:train", f"{how}.log", **values)
    wait_until(latest.exists)
    if how == "told":
        job.terminate()
        assert job.wait(SECONDS) == 128 + signal.SIGTERM
        assert "stopped by signal 15" in real.log(f"{how}.log")
    else:
        for pid in real.servers():
            os.kill(pid, signal.SIGKILL)
        assert job.wait(SECONDS) == 1
        assert "ended in the middle" in real.log(f"{how}.log")
    assert latest.exists()
    status, log = real.run("casesim.training.jobs:train", f"{how}.log", **values)
    assert status == 0
    assert "going on from iteration" in log


def test_training_that_cannot_begin_says_why(
    real: Host, tiny_cohort: TinyCohort
) -> None:
    values = training(tiny_cohort, "none", cases=["/nowhere/case"])
    status, log = real.run("casesim.training.jobs:train", "none.log", **values)
    assert status == 1
    assert log.startswith("Error: ")
    assert "/nowhere/case" in log
    assert "Traceback" not in log


def test_preprocessing_is_the_same(real: Host, tiny_cohort: TinyCohort) -> None:
    case = "case_1"
    values = {
        "images": [str(path) for path in tiny_cohort.images(case)],
        "label": str(tiny_cohort.label(case)),
        "plans": str(tiny_cohort.plans),
        "dataset": str(tiny_cohort.dataset),
        "configuration": "2d",
        "stem": f"preprocessed/{case}",
    }
    assert real.run("casesim.nnunet.jobs:preprocess_case", "p.log", **values) == (0, "")
    for suffix in (".b2nd", "_seg.b2nd"):
        written = real.folder / f"preprocessed/{case}{suffix}"
        expected = Path(f"{tiny_cohort.stem(case)}{suffix}")
        assert written.read_bytes() == expected.read_bytes()


def test_copies_are_the_same(real: Host, tiny_cohort: TinyCohort) -> None:
    values: dict[str, Any] = {
        "images": [str(path) for path in tiny_cohort.images("case_1")],
        "label": str(tiny_cohort.label("case_1")),
        "plans": str(tiny_cohort.plans),
        "dataset": str(tiny_cohort.dataset),
        "configuration": "2d",
        "augmentation": {
            "mirror_axes": [0, 1, 2],
            "elastic_alpha": [0, 100],
            "elastic_sigma": [9, 13],
            "scale": [1.0, 1.0],
        },
        "case": "case_1",
        "seed": 0,
    }
    stems = [["a/copy_0", "a/copy_1"], ["b/copy_0", "b/copy_1"]]
    assert real.run(
        "casesim.training.jobs:augment_case", "a.log", **values, stems=stems[0]
    ) == (0, "")
    augment_case(**values, stems=[str(real.folder / stem) for stem in stems[1]])
    for first, second in zip(*stems, strict=True):
        written = [real.folder / f"{stem}.b2nd" for stem in (first, second)]
        assert written[0].read_bytes() == written[1].read_bytes()
    copies = [(real.folder / f"{stem}.b2nd").read_bytes() for stem in stems[0]]
    assert copies[0] != copies[1]
