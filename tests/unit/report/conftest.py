"""What the tests of the figures need."""

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def plain_style() -> None:
    """A training in the same process leaves nnU-Net's style behind: large letters."""
    mpl.rcdefaults()


@pytest.fixture
def layout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the writing of large pictures, which takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
