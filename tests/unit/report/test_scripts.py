"""The scripts of the similarity stage hand on their files."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.report.drawing import simulate

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"


def run_script(name: str, **fields: Any) -> None:
    job = {
        key: SimpleNamespace(**value) if isinstance(value, dict) else value
        for key, value in fields.items()
    }
    runpy.run_path(
        str(SCRIPTS / "similarity" / name),
        init_globals={"snakemake": SimpleNamespace(**job)},
        run_name="__main__",
    )


def test_the_three_scripts_hand_on_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = simulate(9, 12, (2, 5), prefix="00")
    path = tmp_path / "matrix.tsv"
    matrix.to_csv(path, sep="\t", index_label="train_case/test_case")
    tables = {
        "linkage": str(tmp_path / "linkage.tsv"),
        "leaf_order": str(tmp_path / "leaf_order.tsv"),
        "clusters": str(tmp_path / "clusters.tsv"),
        "summary": str(tmp_path / "clustering.json"),
    }
    log = [str(tmp_path / "log.txt")]
    run_script(
        "cluster.py",
        input={"matrix": str(path)},
        output=tables,
        params={
            "similarity": {"region": "mean", "distance": "euclidean"},
            "clusters": {"number": "auto", "min_size": 2, "max_removed_share": 0.3},
            "patients": {},
        },
        log=log,
    )
    summary = json.loads(Path(tables["summary"]).read_text())
    assert summary["worst_cases"] == ["00002", "00005"]
    assert summary["statement"] in capsys.readouterr().out
    lines = Path(tables["clusters"]).read_text().splitlines()
    assert lines[0] == "case\tcluster\trow_mean\trow_max\tworst"
    assert lines[3].startswith("00002\t")
    assert lines[3].endswith("\ttrue")
    assert lines[1].endswith("\tfalse")
    header = Path(tables["linkage"]).read_text().splitlines()[0]
    assert header == "left\tright\tdistance\tsize"
    for name, params in (("heatmap", {"region": "mean"}), ("dendrogram", {})):
        pictures = {end: str(tmp_path / f"{name}.{end}") for end in ("png", "svg")}
        run_script(
            f"{name}.py",
            input={"matrix": str(path), **tables},
            output=pictures,
            params=params,
            log=log,
        )
        assert all(Path(picture).stat().st_size > 1000 for picture in pictures.values())
