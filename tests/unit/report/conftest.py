"""What the tests of the figures need."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def layout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the writing of large pictures, which takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
