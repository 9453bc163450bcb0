"""What is known of the cases: planted, or told by the user's table."""

from pathlib import Path

import pandas as pd
import pytest

from casesim.errors import UserError
from casesim.evidence.truth import read_truth

COHORT = pd.DataFrame(
    {
        "case": [*"abcdeh"],
        "train_case": ["true"] * 5 + ["false"],
        "planted": [
            *("swapped_labels", "odd_scanner", "", "boundary_noise:0.5"),
            *("corrupted_channel", "missed_lesion:0.3"),
        ],
    }
)


def test_what_was_planted() -> None:
    truth = read_truth(COHORT)
    assert truth["defect"].to_dict() == {
        "a": "label",
        "b": "control",
        "c": "",
        "d": "control",
        "e": "image",
    }
    assert truth.loc["d", "strength"] == 0.5
    assert truth.loc["a", "kind"] == "swapped_labels"


@pytest.mark.parametrize(("suffix", "separator"), [("tsv", "\t"), ("csv", ",")])
def test_a_table_takes_the_place_of_what_was_planted(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    path = tmp_path / f"truth.{suffix}"
    rows = [("case", "kind"), ("c", "shifted_label:5"), ("a", "sound")]
    rows += [("b", "bad_image"), ("h", "missed_lesion")]
    path.write_text("".join(f"{separator.join(row)}\n" for row in rows))
    truth = read_truth(COHORT, path)
    assert truth["defect"].tolist() == ["", "image", "label", "", ""]
    assert truth.loc["c", "strength"] == 5
    assert truth.loc["a", "kind"] == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case\tkind\na\tmystery:2\n", r"truth\.tsv cannot.*\n.*'mystery' is no known"),
        ("case\tsort\na\tsound\n", "no column 'kind'"),
        ("case\tkind\nz\tsound\n", "z is no case of the cohort"),
        ("case\tkind\na\tsound\na\tsound\n", "a is listed 2 times"),
        ("case\tkind\nz\tsound\na\tnone\n", r"z is no case.*\n.*'none' is no known"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "truth.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_truth(COHORT, path)


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(UserError, match="mystery"):
        read_truth(COHORT.assign(planted="mystery"))
