"""Files told by content: dates and copies do not matter, corrections do."""

import hashlib
import os
from pathlib import Path

import pytest

from casesim.cohort.fingerprints import Fingerprints


def test_a_checksum_is_of_the_whole_content(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)  # more than is read at a time
    path = tmp_path / "image.nii.gz"
    path.write_bytes(content)
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert Fingerprints(tmp_path / "store").of([str(path)]) == [expected]


def test_what_is_remembered_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = tmp_path / "label", tmp_path / "new/store.json"
    path.write_text("one")
    first = Fingerprints(store)
    sums = first.of([str(path)])
    first.save()

    def read(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("casesim.cohort.fingerprints._look", read)
    assert Fingerprints(store).of([str(path)]) == sums
    store.write_text("{")  # damaged: all is read again
    with pytest.raises(AssertionError, match="read again"):
        Fingerprints(store).of([str(path)])


@pytest.mark.parametrize("date", [0.0, 4e9])
def test_a_correction_is_seen_whatever_its_date(tmp_path: Path, date: float) -> None:
    path, store = tmp_path / "label", tmp_path / "store"
    path.write_text("wrong")
    known = Fingerprints(store)
    assert known.refresh([str(path)]) == []  # new, not changed
    known.save()
    (before,) = known.of([str(path)])
    path.write_text("right")  # of the same size
    os.utime(path, (date, date))
    again = Fingerprints(store)
    assert again.refresh([str(path)]) == [str(path)]
    assert again.of([str(path)]) != [before]
    assert again.refresh([str(path)]) == []


def test_a_copy_or_a_touch_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "label"
    path.write_text("right")
    known = Fingerprints(tmp_path / "store")
    before = known.of([str(path)])
    path.touch()
    assert known.refresh([str(path)]) == []
    replacement = tmp_path / "copy"
    replacement.write_text("right")
    replacement.replace(path)
    assert known.refresh([str(path)]) == []
    assert known.of([str(path)]) == before


def test_a_file_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    known = Fingerprints(tmp_path / "store")
    (gone,) = known.of([str(tmp_path / "gone")])
    assert gone.startswith("unreadable")
    (tmp_path / "gone").write_text("back")
    assert known.of([str(tmp_path / "gone")]) != [gone]
