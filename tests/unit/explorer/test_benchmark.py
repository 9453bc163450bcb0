"""The benchmark's page of random scores is a page like any other."""

from pathlib import Path

from benchmarks.explorer import Pretended
from casesim.explorer import pack


def test_a_page_of_random_scores(tmp_path: Path) -> None:
    run = Pretended(tmp_path, 6, 9)
    page, seconds = run.build_page()
    assert seconds > 0
    study = pack.read_script(page.parent / "data/study.js")
    assert (len(study["rows"]), len(study["columns"])) == (6, 9)
    assert study["digest"]
    worst = [row for row, bad in zip(study["rows"], study["worst"], strict=True) if bad]
    assert sorted(worst) == ["case_000", "case_001"]
