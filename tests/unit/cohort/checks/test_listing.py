"""Everything in one list: table, terminal, exit status."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    cut,
    image_of,
    label_of,
    moved,
    save,
)
from unit.cohort.folders import ROOT

from casesim.cohort.checks import listing
from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort
from casesim.cohort.problem import Problem


def break_everything(folder: Folder) -> list[str]:
    """One cohort with all that can be wrong; what the list must say, in any order."""
    folder.image(0, 1).unlink()
    cut(folder.label(0), 0.5)
    voxels = image_of(1).astype(np.float32)
    voxels[1, 1, 1] = np.inf
    save(folder.image(1), voxels)
    save(folder.label(1), label_of(1) * 4, moved(origin=3))
    save(folder.image(2), image_of(2)[2:])
    save(folder.label(2), np.zeros(SHAPE, np.uint8))
    for channel in range(2):
        save(folder.image(3, channel), np.zeros(SHAPE, np.int16))
        save(folder.image(5, channel), image_of(4, channel))
    save(folder.image(3, 2), image_of(3, 2))
    save(folder.root / "labelsTr/case ü.nii.gz", label_of(0))
    save(folder.root / "labelsTr/-x.nii.gz", label_of(0))
    save(folder.root / "labelsTr/CASE_7.nii.gz", label_of(0))
    save(folder.root / "labelsTr/case_7.nii.gz", label_of(0))
    return [
        "case_0_0001.nii.gz is missing",
        "case_0.nii.gz is cut off",
        "case_1_0000.nii.gz (FLAIR) has 1 NaN or infinite voxels",
        "case_1.nii.gz has label values outside the declared ones",
        "case_1.nii.gz does not lie on the grid",
        "case_2.nii.gz is an empty label map",
        "case_2_0001.nii.gz does not lie on the grid",
        "case_2.nii.gz does not lie on the grid",
        "No brain voxels",
        "Wrong channel count: case_3_0002.nii.gz",
        "case_4 and case_5 have the same voxels",
        "is not plain ASCII",
        "starts with a dot or a dash",
        "Duplicate case id",
    ]


def test_everything_at_once(folder: Folder) -> None:
    expected = break_everything(folder)
    problems = [p for p in folder.check() if p.severity == "error"]
    for text in expected:
        assert sum(text in p.problem for p in problems) == 1, text
    assert len(problems) == len(expected)
    assert [p.case for p in problems] == sorted(p.case for p in problems)
    assert all(p.how_to_fix for p in problems)
    one_thread = check_cohort(load_cohort(folder.config), 1)
    assert one_thread == folder.check()


# What Snakemake does before it runs a script, in short.
DRIVER = """
import json, runpy, sys
from types import SimpleNamespace as Namespace
class Log(list): pass
script, cohort, results = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
log = Log([results + "/check_cohort.log"])
log.checks = results + "/checks.tsv"
snakemake = Namespace(
    log=log,
    params=Namespace(cohort=cohort, raw="results/raw"),
    output=Namespace(cohort=results + "/cohort.tsv"),
    threads=2,
    resources=Namespace(mem_mb=1000),
)
runpy.run_path(script, {"snakemake": snakemake}, "__main__")
"""


def run_script(folder: Folder, results: Path) -> subprocess.CompletedProcess[str]:
    """The job in a process of its own: exit status, and what the terminal shows."""
    scripts = ROOT / "workflow_scripts"
    arguments = [str(scripts / "cohort/check_cohort.py"), json.dumps(folder.config)]
    return subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments, str(results)],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_script_lists_everything_and_stops(folder: Folder, tmp_path: Path) -> None:
    expected = break_everything(folder)
    run = run_script(folder, tmp_path)
    assert run.returncode == 1
    log = (tmp_path / "check_cohort.log").read_text()
    table = read_table(tmp_path / "checks.tsv")
    assert list(table[0]) == ["case", "severity", "problem", "how_to_fix"]
    for text in expected:
        assert text in run.stdout
        assert text in log
        assert sum(text in row["problem"] for row in table) == 1
    assert "14 errors" in run.stdout
    assert "Traceback" not in run.stdout + log
    assert not (tmp_path / "cohort.tsv").exists()


def test_script_goes_on_over_warnings(folder: Folder, tmp_path: Path) -> None:
    run = run_script(folder, tmp_path)
    assert (run.returncode, run.stdout) == (0, "")
    header = "case\tseverity\tproblem\thow_to_fix\n"
    assert (tmp_path / "checks.tsv").read_text() == header
    save(folder.image(4, 1), np.zeros(SHAPE, np.int16))
    run = run_script(folder, tmp_path)
    assert run.returncode == 0
    assert "0 errors and 1 warnings in 1 cases" in run.stdout
    assert len(read_table(tmp_path / "cohort.tsv")) == 6


def test_script_words_a_config_mistake(folder: Folder, tmp_path: Path) -> None:
    (folder.root / "dataset.json").unlink()
    assert run_script(folder, tmp_path).returncode == 1
    log = (tmp_path / "check_cohort.log").read_text()
    assert "has no dataset.json" in log
    assert "Traceback" not in log


def test_odd_bytes_in_names_reach_terminal_and_table(tmp_path: Path) -> None:
    odd = Problem("a\udcff\x1b[2J", "error", "two\nlines", "fix\tit")
    assert "a\\udcff\\x1b[2J: two lines" in listing.format_checks([odd])
    listing.write_checks([odd], tmp_path / "checks.tsv")
    (row,) = read_table(tmp_path / "checks.tsv")
    assert row["problem"] == "two lines"
    assert row["how_to_fix"] == "fix it"
