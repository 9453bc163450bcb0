"""The matrix from scores, by hand, and as a file."""

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from unit.similarity.matrices import table

from casesim.errors import UserError
from casesim.inference import overlap
from casesim.inference.surface import Reference
from casesim.similarity.matrix import from_scores, read_matrix, row_statistics

LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def cell(
    model: str, case: str, prediction: tuple[int, ...], reference: tuple[int, ...]
) -> dict[str, Any]:
    return overlap.score_record(
        model,
        case,
        np.array(prediction),
        Reference.of(np.array(reference), (1.0,)),
        LABELS,
        REGIONS,
    )


def scores() -> pd.DataFrame:
    """Models A and B on cases A, B, C; label core is in none of case C's maps."""
    rows = []
    for model, shift in (("A", 0), ("B", 1)):
        for case, reference in (("A", (1, 1)), ("B", (1, 2)), ("C", (0, 1))):
            prediction = (1, 0) if shift else (1, 1)
            rows.append(cell(f"finetuned/{model}", case, prediction, reference))
    return overlap.score_table(rows)


def test_matrix_by_hand() -> None:
    matrix: Any = from_scores(scores(), "edema", ["A", "B"], ["A", "B", "C"])
    expected = pd.DataFrame(
        [[1.0, 2 / 3, 2 / 3], [2 / 3, 1.0, 0.0]],
        index=pd.Index(["A", "B"], name="train_case/test_case"),
        columns=["A", "B", "C"],
    )
    pd.testing.assert_frame_equal(matrix, expected)
    # rows and columns come in the order asked for
    turned = from_scores(scores(), "edema", ["B", "A"], ["C", "A"])
    assert turned.to_numpy().tolist() == [[0.0, 2 / 3], [2 / 3, 1.0]]


def test_matrix_of_means_and_what_they_leave_out() -> None:
    mean: Any = from_scores(scores(), "mean", ["A", "B"], ["A", "B", "C"])
    assert mean.loc["A"].tolist() == [1.0, 1 / 3, 2 / 3]
    undefined = from_scores(
        scores(), "mean", ["A", "B"], ["A", "B", "C"], "n_undefined"
    )
    assert undefined.to_numpy().tolist() == [[2, 1, 2], [2, 1, 2]]
    core: Any = from_scores(scores(), "core", ["A"], ["A", "B"])
    assert math.isnan(core.loc["A", "A"])
    assert core.loc["A", "B"] == 0


def run_script(name: str, **contract: Any) -> None:
    script = Path(__file__).parents[3] / "workflow_scripts" / f"{name}.py"
    fields = {key: SimpleNamespace(**value) for key, value in contract.items()}
    job = SimpleNamespace(**fields, log=[str(contract["output"]["folder"] / "log")])
    runpy.run_path(str(script), {"snakemake": job}, "__main__")


def test_scripts_from_cells_to_matrices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for model in ("A", "B"):
        files = []
        for case in ("A", "B"):
            path = tmp_path / f"{model}-{case}.json"
            reference = (1, 2) if case == "A" else (1, 1)
            content = cell(f"finetuned/{model}", case, (1, 1), reference)
            path.write_text(json.dumps(content))
            files.append(str(path))
        tables.append(str(tmp_path / f"{model}.tsv"))
        run_script(
            "inference/collect_scores",
            input={"scores": files},
            output={
                "table": tables[-1],
                "errors": str(tmp_path / f"{model}_errors.tsv"),
                "folder": tmp_path,
            },
        )
    regions = ["edema", "core", "enhancing", "WT"]
    output = {
        "matrix": tmp_path / "matrix.tsv",
        "undefined": tmp_path / "matrix_undefined.tsv",
        "regions": [tmp_path / f"matrix_{region}.tsv" for region in regions],
        "folder": tmp_path,
    }
    run_script(
        "similarity/similarity_matrix",
        input={"rows": tables},
        output=output,
        params={
            "train": ["B", "A"],
            "test": ["A", "B"],
            "regions": regions,
            "labels": ["edema", "core", "enhancing"],
        },
    )
    text = (tmp_path / "matrix.tsv").read_text().splitlines()
    assert text[0].split("\t") == ["train_case/test_case", "A", "B"]
    assert text[1].split("\t") == ["B", repr(1 / 3), "1.0"]
    undefined: Any = pd.read_csv(
        tmp_path / "matrix_undefined.tsv", sep="\t", index_col=0
    )
    assert undefined.loc["A"].tolist() == [1, 2]
    core: Any = pd.read_csv(tmp_path / "matrix_core.tsv", sep="\t", index_col=0)
    assert core.loc["A", "A"] == 0
    assert core["B"].isna().all()
    assert "6 of 12 Dice values" in capsys.readouterr().out


def test_missing_cell_is_named() -> None:
    with pytest.raises(UserError, match=r"finetuned/B on case D"):
        from_scores(scores(), "mean", ["B"], ["A", "D"])
    with pytest.raises(UserError, match=r"finetuned/C on case A"):
        from_scores(scores(), "mean", ["C"], ["A"])


def test_cell_that_is_there_twice_is_refused() -> None:
    table = pd.concat([scores(), scores().iloc[:7]])
    with pytest.raises(ValueError, match="duplicate"):
        from_scores(table, "mean", ["A"], ["A"])


def test_row_statistics_leave_out_nan_and_only_the_own_column() -> None:
    matrix = table(
        [[0.9, 0.2, math.nan, 0.4]], rows=["b"], columns=["b", "a", "c", "d"]
    )
    statistics = row_statistics(matrix)
    assert statistics.to_numpy()[0].tolist() == pytest.approx([0.3, 0.4])


def test_a_matrix_with_words_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "matrix.tsv"
    path.write_text("case\ta\nb\tgood\n")
    with pytest.raises(UserError, match=r"matrix\.tsv"):
        read_matrix(path)
