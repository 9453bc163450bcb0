"""The arm among random arms."""

from pathlib import Path

import numpy as np
import pytest
from unit.report.drawing import assert_nothing_clipped

from casesim.report import null_distribution


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("number", [3, 19, 99])
def test_null_distribution(number: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 0.01, number)
    figure = null_distribution.draw(
        0.02, values, tmp_path / "n.png", tmp_path / "n.svg", p=0.05, floor=0.05
    )
    assert_nothing_clipped(figure)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "worst cluster +0.020" in key
    assert f"random arms (R = {number})" in key
    assert any(text.startswith("p = 0.05") for text in key)
    if number < 20:
        dots = np.asarray(figure.axes[0].collections[0].get_offsets())
        np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(values))
