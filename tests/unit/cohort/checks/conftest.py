"""A folder for each test."""

from pathlib import Path

import pytest
from unit.cohort.checks.broken import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "raw")
