"""The gallery of the cohort."""

from pathlib import Path

import pytest
from unit.report.drawing import LABELS, assert_apart, assert_nothing_clipped, volumes

from casesim.report import gallery


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("number", [1, 6])
def test_gallery(number: int, tmp_path: Path) -> None:
    image, label = volumes()
    cases = [
        gallery.GalleryCase(
            f"case_{i:03d}" + "\nswapped labels" * (i == 3),
            {"FLAIR": image, "T1gd": image},
            label,
        )
        for i in range(number)
    ]
    figure = gallery.draw(cases, LABELS, tmp_path / "g.png", tmp_path / "g.svg")
    assert_nothing_clipped(figure)
    shown = [cell._suptitle for cell in figure.subfigs if cell._suptitle]  # type: ignore[attr-defined]
    assert len(shown) == number
    assert_apart(shown)
    assert len(figure.axes) == 2 * number


def test_gallery_has_a_limit(tmp_path: Path) -> None:
    image, label = volumes()
    case = gallery.GalleryCase("case", {"FLAIR": image}, label)
    with pytest.raises(ValueError, match="1 to 24"):
        gallery.draw([case] * 25, LABELS, tmp_path / "g.png", tmp_path / "g.svg")
