"""What belongs to one test alone: its folder, its predictors."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .hosts import short_folder
from .predictors import Host


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private folder of this test's own, whose path is short enough for sockets."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with short_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A machine with predictors that compute nothing, in a private folder."""
    with short_folder() as folder, closing(Host(folder)) as host:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield host
