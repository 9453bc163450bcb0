"""A reviewer's table: read whole, refused with its reasons, summed up honestly."""

import hashlib
from pathlib import Path

import pytest

from casesim.errors import UserError
from casesim.pruning import decisions

TRAIN = ["a", "b", "c", "d"]
HEAD = "case\tdecision\tnote\treviewer\ttime\tmatrix_digest\theld_out_seen"


def write(folder: Path, *lines: str, head: str = HEAD) -> Path:
    path = folder / "decisions.tsv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def line(case: str, word: str, digest: str = "d1", seen: str = "false") -> str:
    return f'{case}\t{word}\ta "note"\tR\t2026-01-01T10:00:00Z\t{digest}\t{seen}'


def test_decisions_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, line("b", "remove"), line("a", "remove"), line("c", "fine"))
    found = decisions.read(path, TRAIN)
    assert found.of("remove") == ["a", "b"]
    assert found.of("relabel") == []
    assert found.matrix_digest == "d1"
    assert not found.held_out_seen


def test_a_table_that_went_through_a_spreadsheet(tmp_path: Path) -> None:
    path = write(tmp_path, line("a", "remove", seen="FALSE"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = decisions.read(path, TRAIN)
    assert found.of("remove") == ["a"]
    assert not found.held_out_seen


def test_held_out_counts_as_seen_unless_every_line_denies_it(tmp_path: Path) -> None:
    path = write(tmp_path, line("a", "remove"), line("b", "fine", seen="true"))
    assert decisions.read(path, TRAIN).held_out_seen
    short = write(tmp_path, "a\tremove\t\t\t\td1", head=HEAD.rsplit("\t", 1)[0])
    assert decisions.read(short, TRAIN).held_out_seen


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line("a", "delete"),
        line("a", "remove"),
        line("z", "fine", digest="d2"),
    )
    with pytest.raises(UserError) as error:
        decisions.read(path, TRAIN)
    message = str(error.value)
    assert "a is decided on 2 times" in message
    assert "'delete' is none of fine, relabel, remove, unsure" in message
    assert "z is no train case" in message
    assert "different matrices" in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no decision"),
        ([line(case, "remove") for case in TRAIN], "nothing is left"),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        decisions.read(write(tmp_path, *lines), TRAIN)


def test_what_is_no_table_of_decisions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        decisions.read(tmp_path / "none.tsv", TRAIN)
    with pytest.raises(UserError, match="no column decision, note, reviewer"):
        decisions.read(write(tmp_path, "a", head="case"), TRAIN)


def test_decisions_on_another_matrix_are_stale(tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.tsv"
    matrix.write_text("one")
    digest = hashlib.sha256(b"one").hexdigest()
    path = write(tmp_path, line("a", "remove", digest=digest))
    found = decisions.read(path, TRAIN)
    found.refuse_stale(matrix)
    matrix.write_text("two")
    with pytest.raises(UserError, match=r"another matrix.*decide again"):
        found.refuse_stale(matrix)


def test_relabel_without_a_corrected_map_counts_as_neither(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line("a", "remove"),
        line("b", "relabel"),
        line("c", "relabel"),
        line("d", "unsure"),
    )
    said = decisions.read(path, TRAIN).summary(corrected=["c"])
    assert said["not_corrected"] == ["b"]
    assert [said[word] for word in decisions.WORDS] == [0, 2, 1, 1]
    assert said["statement"] == (
        "Decisions: 0 fine, 2 relabel, 1 remove, 1 unsure. To be relabelled, but "
        "without a corrected label map, so neither removed nor mended: b."
    )


def test_the_summary_says_that_the_judges_had_been_seen(tmp_path: Path) -> None:
    path = write(tmp_path, line("a", "remove", seen="true"))
    said = decisions.read(path, TRAIN).summary([])
    assert said["held_out_seen"] is True
    assert "no fair judge" in said["statement"]
