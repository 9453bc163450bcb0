"""What Snakemake noted is told whole from damaged; damaged notes are not trusted."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from casesim import runs
from casesim.records import INCOMPLETE, METADATA, distrust_damaged
from casesim.runs import LOCKS, arrive

NOTE = b'{"rule": "finetune", "params": ["7"]}'


def note(folder: Path, output: str, content: bytes) -> Path:
    name = urlsafe_b64encode(output.encode()).decode()
    # As Snakemake splits names that are too long for one.
    parts = [f"@{name[:250]}", name[250:]] if len(name) > 255 else [name]
    path = folder.joinpath(METADATA, *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", NOTE[:20], bytes(len(NOTE))])
@pytest.mark.parametrize("output", ["results/a.tsv", f"results/{'long/' * 50}b.tsv"])
def test_a_damaged_note_makes_its_output_again(
    tmp_path: Path, content: bytes, output: str
) -> None:
    whole = note(tmp_path, "results/other.tsv", NOTE)
    damaged = note(tmp_path, output, content)
    assert distrust_damaged(tmp_path) == 1
    assert whole.read_bytes() == NOTE
    assert not damaged.exists()
    mark = tmp_path / INCOMPLETE / damaged.relative_to(tmp_path / METADATA)
    assert mark.is_file()
    assert distrust_damaged(tmp_path) == 0
    assert distrust_damaged(tmp_path / "elsewhere") == 0


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What this process holds ends with the test."""
    yield
    while runs._held:
        os.close(runs._held.pop())


def test_it_is_told_at_the_start(tmp_path: Path) -> None:
    note(tmp_path, "results/a.tsv", b"")
    told = arrive(tmp_path)
    assert told is not None
    assert "noted of 1 finished files is damaged" in told


def test_notes_are_left_alone_while_another_run_writes(tmp_path: Path) -> None:
    path = note(tmp_path, "results/a.tsv", b"")
    lock = tmp_path / LOCKS / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert arrive(tmp_path) is None
    assert path.exists()
