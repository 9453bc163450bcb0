"""Confusion and bands of cells: recounted voxel by voxel, as a table, as arrays."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from casesim.errors import UserError
from casesim.inference import errors, overlap
from casesim.inference.surface import Reference

LABELS = {"background": 0, "edema": 1, "core": 2, "rim": 4}
REGIONS = {"WT": (1, 2, 4), "TC": (2, 4)}
NAMES = ["edema", "core", "rim"]


def record(
    model: str, case: str, prediction: np.ndarray, reference: np.ndarray
) -> dict[str, object]:
    return overlap.score_record(
        model,
        case,
        prediction,
        Reference.of(reference, (1.0, 1.0, 1.0)),
        LABELS,
        REGIONS,
    )


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    prediction, reference = draw.choice([0, 0, 0, 1, 2, 4], (2, 4, 5, 6))
    return prediction.astype(np.uint8), reference.astype(np.uint8)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_confusion_is_scikit_learns_and_holds_every_count(seed: int) -> None:
    prediction, reference = maps(seed)
    found = record("base", "A", prediction, reference)
    confusion = np.array(found["confusion"])
    expected = confusion_matrix(
        reference.ravel(), prediction.ravel(), labels=[0, 1, 2, 4]
    )
    np.testing.assert_array_equal(confusion, expected)
    assert confusion.sum() == reference.size
    table = overlap.score_table([found]).set_index("region")
    assert table.loc["core", "tp"] == confusion[2, 2]
    assert table.loc["TC", "n_pred"] == confusion[:, [2, 3]].sum()
    assert table.loc["WT", "fn"] == confusion[1:, 0].sum()
    # What the bands count is what the whole foreground's counts say.
    bands = errors.from_tables([errors.error_table([found])], NAMES)
    assert bands.fp.sum() == table.loc["WT", "fp"] == confusion[0, 1:].sum()
    assert bands.fn.sum() == table.loc["WT", "fn"]


def test_tables_survive_writing_and_become_arrays(tmp_path: Path) -> None:
    tables = []
    for i, model in enumerate(["finetuned/001", "finetuned/NA"]):
        cells = [record(model, case, *maps(10 * i + j)) for j, case in enumerate("ba")]
        path = tmp_path / f"{i}.tsv"
        overlap.write_table(errors.error_table(cells), path)
        tables.append(errors.read_table(path))
    assert tables[0].columns[:4].tolist() == [
        *("model", "case", "background as background", "background as edema")
    ]
    assert tables[0].columns[-1] == "fn beyond"
    found = errors.from_tables(tables, NAMES)
    chosen = found.select(["finetuned/NA", "finetuned/001"], ["b"])
    assert chosen.confusion.shape == (2, 1, 4, 4)
    expected = record("finetuned/NA", "b", *maps(10))
    np.testing.assert_array_equal(chosen.confusion[0, 0], expected["confusion"])


def test_cells_that_are_not_there_are_nan() -> None:
    cells = [("A", "a"), ("B", "b")]
    table = errors.error_table([record(m, c, *maps(0)) for m, c in cells])
    found = errors.from_tables([table], NAMES)
    assert np.isnan(found.confusion[0, 1]).all()
    assert np.isnan(found.fp[1, 0]).all()


def test_each_case_by_the_model_of_its_fold() -> None:
    cells = [record(f"folds/{i}", case, *maps(i)) for i, case in enumerate("ab")]
    found = errors.of_one_model(cells, NAMES, ["b", "a"])
    assert found.cases == ["b", "a"]
    for place, cell in enumerate(reversed(cells)):
        np.testing.assert_array_equal(found.confusion[0, place], cell["confusion"])


def test_tables_with_other_labels_are_refused(tmp_path: Path) -> None:
    table = errors.error_table([record("A", "a", *maps(0))])
    with pytest.raises(UserError, match="'background as rest'"):
        errors.from_tables([table], ["rest"])
    (tmp_path / "bad.tsv").write_text("model\tcase\tedema as core\nA\ta\tmany\n")
    with pytest.raises(UserError, match=r"bad\.tsv is not a table of errors"):
        errors.read_table(tmp_path / "bad.tsv")
    with pytest.raises(UserError, match="missing"):
        errors.read_table(tmp_path / "none.tsv")


def test_a_score_file_of_an_older_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    old = record("A", "a", *maps(0))
    del old["confusion"]
    pd.Series(old).to_json(path)
    with pytest.raises(UserError, match=r"a\.json is not a score file"):
        overlap.read_record(path)
