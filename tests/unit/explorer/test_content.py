"""What the page is told of a run is what the tables say."""

import base64
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from unit.explorer.runs import Run

from casesim.explorer import content, pack, site


def unpack(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def test_the_matrix_is_in_leaf_order(run: Run) -> None:
    study = pack.read_script(run.results / "explorer/data/study.js")
    order = pd.read_csv(run.results / "similarity/leaf_order.tsv", sep="\t")
    assert study["rows"] == order["case"].tolist()
    assert study["columns"] == [*study["rows"], "other_1"]
    found = unpack(study["matrices"]["mean"], 5, 6)
    np.testing.assert_allclose(
        found, run.matrix.loc[study["rows"], study["columns"]], 1e-6
    )
    assert [study["rows"][i] for i in np.flatnonzero(study["worst"])] == sorted(
        run.poor, key=study["rows"].index
    )


def test_scores_of_the_models_that_saw_all_cases(run: Run) -> None:
    study = pack.read_script(run.results / "explorer/data/study.js")
    models = [model["name"] for model in study["models"]]
    assert models == ["base", "retrained/worst_cluster", "retrained/random_1"]
    found = unpack(study["scores"], 3, 4, 8)
    table = run.scores().set_index(["model", "region", "case"])["dice"]
    for m, model in enumerate(models):
        for r, region in enumerate(study["regions"]):
            for c, case in enumerate(study["tests"]):
                expected = table[model, region, case]
                np.testing.assert_allclose(found[m, r, c], expected, 1e-6)
    assert study["tests"] == run.tests
    assert study["held_out"] == ["held_1", "held_2"]
    assert study["patients"] == dict.fromkeys(study["held_out"], "somebody")


def test_the_digest_is_that_of_the_clustered_matrix(run: Run) -> None:
    study = pack.read_script(run.results / "explorer/data/study.js")
    matrix = (run.results / "similarity/matrix.tsv").read_bytes()
    assert study["digest"] == hashlib.sha256(matrix).hexdigest()


def test_two_runs_have_two_names(tmp_path: Path) -> None:
    names = {
        content.run_id(tmp_path / folder, digest)
        for folder in ("a/results", "b/results")
        for digest in ("1", "2")
    }
    assert len(names) == 4
    assert content.run_id(tmp_path / "a/results", "1") in names


def test_tree_leaves_carry_their_place_on_the_page() -> None:
    linkage = np.array([[0, 2, 0.5, 2], [1, 3, 0.9, 3]])
    # Shown from top to bottom: case 1, case 2, case 0.
    assert content.tree(linkage, [1, 2, 0]) == [(2, 1, 0.5), (0, 3, 0.9)]


def test_all_columns_of_the_cases_are_shown_as_they_are(run: Run) -> None:
    path = run.results / "similarity/cases.tsv"
    table = pd.read_csv(path, sep="\t", dtype={"case": str})
    shown = content._table(path)
    assert shown["columns"] == table.columns.tolist()
    assert [row[1] for row in shown["rows"]] == table["case"].tolist()
    at = shown["columns"].index("row_mean")
    np.testing.assert_allclose([row[at] for row in shown["rows"]], table["row_mean"])


def test_a_report_takes_what_it_is_told_and_nothing_that_is_left_over(
    run: Run, tmp_path: Path
) -> None:
    explorer, target = tmp_path / "explorer", tmp_path / "in_report"
    shutil.copytree(run.results / "explorer", explorer)
    files = [path for path in explorer.rglob("*.*") if path.suffix != ".json"]
    (explorer / "data/left_the_cohort").mkdir()
    (explorer / "data/left_the_cohort/channel_0.js").write_text("an image")
    for _ in range(2):  # what an earlier report had is gone, too
        site.copy_files(explorer, map(str, files), target)
        found = {path.relative_to(target) for path in target.rglob("*.*")}
        assert found == {path.relative_to(explorer) for path in files}
        (target / "old.js").touch()
    made, copied = explorer / "data/study.js", target / "data/study.js"
    assert copied.read_bytes() == made.read_bytes()


def test_a_case_may_be_called_na_or_007(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("case\tvalue\tworst\nNA\t1.5\ttrue\n007\t\tfalse\n")
    assert content._table(path)["rows"] == [["NA", 1.5, True], ["007", None, False]]
