"""Results from the future come back in their order; others keep their dates."""

import os
import re
import time
from pathlib import Path

import pytest

from casesim.dates import bring_back
from casesim.runs import _bring_back

SECOND = 10**9
NOW = 1_800_000_000 * SECOND


def made(folder: Path, **seconds: float) -> dict[str, Path]:
    """Files of `folder/results/<name>/file`, by seconds from now."""
    paths = {}
    for name, after in seconds.items():
        paths[name] = folder / "results" / name / "file"
        paths[name].parent.mkdir(parents=True)
        paths[name].write_text(name)
        date = NOW + int(after * SECOND)
        for path in (paths[name], paths[name].parent):
            os.utime(path, ns=(date, date))
    os.utime(folder / "results", ns=(NOW, NOW))
    return paths


def seconds(path: Path) -> float:
    return (path.stat().st_mtime_ns - NOW) / SECOND


def test_files_from_the_future_get_dates_of_the_past(tmp_path: Path) -> None:
    paths = made(tmp_path, a=-900, b=-300, c=3500, d=3580, e=3600, f=3600)
    assert bring_back(tmp_path, NOW) == (4, 3600)
    found = [seconds(path) for path in paths.values()]
    assert found == [-900, -300, -100, -20, 0, 0]
    assert bring_back(tmp_path, NOW) == (0, 0)


def test_less_time_than_there_is_between_them(tmp_path: Path) -> None:
    paths = made(tmp_path, a=-90, b=-30, c=3400, d=3500, e=3600)
    bring_back(tmp_path, NOW)
    found = [seconds(path) for path in paths.values()]
    assert found == pytest.approx([-90, -30, -30, -15, 0], abs=1e-3)
    assert found == sorted(set(found))


def test_no_room_between_the_last_file_and_now(tmp_path: Path) -> None:
    paths = made(tmp_path, a=0, b=100, c=200)
    bring_back(tmp_path, NOW)
    found = [path.stat().st_mtime for path in paths.values()]
    # As floats, as Snakemake reads them.
    assert found[0] < found[1] < found[2] < NOW / SECOND + 0.001


def test_a_clock_that_differs_a_little_is_none_set_back(tmp_path: Path) -> None:
    paths = made(tmp_path, a=-1, b=30)
    assert bring_back(tmp_path, NOW) == (0, 0)
    assert seconds(paths["b"]) == 30


def test_it_is_told(tmp_path: Path) -> None:
    assert _bring_back(tmp_path) == ""
    path = made(tmp_path, a=0)["a"]
    date = time.time() + 3600
    for place in (path, path.parent):
        os.utime(place, (date, date))
    told = _bring_back(tmp_path)
    assert re.match("1 files below results .* by up to (3600|3599) s: the clock", told)
    assert path.stat().st_mtime < time.time() + 1
