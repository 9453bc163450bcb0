"""What can be asked for by name, and what cannot."""

import importlib
import re
from pathlib import Path

import pytest

from casesim.errors import UserError
from casesim.processes import jobs

NAMES = [
    "casesim.nnunet.jobs:preprocess_case",
    "casesim.training.jobs:train",
    "casesim.training.jobs:augment_case",
    "casesim.evidence.jobs:label_quality",
]


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_found(name: str) -> None:
    assert jobs.is_known(name)
    module, _, function = name.partition(":")
    assert jobs.find(name) is getattr(importlib.import_module(module), function)


def test_all_that_a_room_offers_is_there() -> None:
    for module in {name.partition(":")[0] for name in NAMES}:
        imports = importlib.import_module(module).IMPORTS
        assert {f"{module}:{name}" for name in imports} <= set(NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "train",
        "os:system",
        "casesim.training.jobs",
        "casesim.training.jobs:",
        "casesim.training.jobs:IMPORTS",
        "casesim.training.jobs:PREPROCESSING",
        "casesim.training.jobs:train:train",
        "casesim.training.jobs:__builtins__",
        "casesim.training.trainer:train",
        "casesim.nowhere.jobs:train",
        "casesim.cohort.jobs:train",
        "casesim.training.jobs.more:train",
        "xcasesim.training.jobs:train",
        "casesim.training.jobs:train\n",
    ],
)
def test_nothing_else_can_be_asked_for(name: str) -> None:
    assert not jobs.is_known(name)
    with pytest.raises(UserError, match="no job"):
        jobs.find(name)
    with pytest.raises(UserError, match="no job"):
        jobs.prepare(name)


def test_scripts_ask_for_what_there_is() -> None:
    scripts = Path(jobs.__file__).parents[2]
    asked = {
        name
        for script in [*scripts.glob("*.py"), *scripts.glob("*/*.py")]
        if script.parent.name != "casesim"
        for name in re.findall(r'"(casesim\.[\w.]+:\w+)"', script.read_text())
    }
    assert asked == set(NAMES)
