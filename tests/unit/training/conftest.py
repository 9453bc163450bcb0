from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unit.conftest import TinyCohort
from unit.training.trainings import train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def trained(tiny_cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(tiny_cohort, tmp_path_factory.mktemp("trained"))
