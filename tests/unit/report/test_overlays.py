"""Overlays: the slice that changed, and empty ones."""

from pathlib import Path

import numpy as np
from unit.report.drawing import LABELS, assert_nothing_clipped, volumes

from casesim.report import overlays, style


def test_overlays_show_the_slice_that_changed_most(tmp_path: Path) -> None:
    image, label = volumes()
    after = label.copy()
    after[7] = 0
    after[4, 16, 22] = 3
    overlay = overlays.Overlay("case_001\nmost improved", image, label, label, after)
    assert overlays.disagreeing_slice(overlay, LABELS) == 7
    same = overlays.Overlay("same", image, label, label, label)
    assert overlays.disagreeing_slice(same, LABELS) == 5
    figure = overlays.draw(
        [overlay, same], LABELS, tmp_path / "o.png", tmp_path / "o.svg"
    )
    assert_nothing_clipped(figure)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["reference", "before", "after"] * 2
    assert "axial slice 7" in figure.axes[0].get_ylabel()
    # In slice 7 the reference has contours, the model after has none left.
    assert len(figure.axes[0].collections) > len(figure.axes[2].collections)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["edema", "non-enhancing tumor", "enhancing tumour"]


def test_overlays_of_nothing_say_so(tmp_path: Path) -> None:
    figure = overlays.draw([], LABELS, tmp_path / "o.png", tmp_path / "o.svg")
    assert "nothing was compared" in figure.texts[0].get_text()


def test_an_empty_slice_can_be_drawn(tmp_path: Path) -> None:
    nothing = np.zeros((3, 8, 8))
    mask = nothing.astype(int)
    overlay = overlays.Overlay("empty", nothing, mask, mask, mask)
    overlays.draw([overlay], LABELS, tmp_path / "o.png", tmp_path / "o.svg")
    assert (tmp_path / "o.png").stat().st_size > 0


def test_ignored_voxels_are_drawn_but_choose_no_slice(tmp_path: Path) -> None:
    image, label = volumes()
    label[2, 5:30, 5:30] = 4
    before = np.where(label == 4, 1, label)
    after = np.where(label == 4, 2, label)
    after[6] = 0
    labels = {**LABELS, "ignore": 4}
    overlay = overlays.Overlay("case", image, label, before, after)
    assert overlays.disagreeing_slice(overlay, LABELS) == 2
    assert overlays.disagreeing_slice(overlay, labels) == 6
    same = overlays.Overlay("same", image, label, label, label)
    assert overlays.disagreeing_slice(same, labels) == 5
    figure = overlays.draw([overlay], labels, tmp_path / "o.png", tmp_path / "o.svg")
    key = figure.legends[0]
    assert key.get_texts()[-1].get_text() == "ignore"
    assert key.get_lines()[-1].get_color() == style.GREY
    assert style.GREY not in [line.get_color() for line in key.get_lines()[:-1]]
