"""The workflow's files in one place, the study in another; and as a part of others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from .conftest import ROOT, SMALL, Checkout, succeeded
from .test_dry_run import job_counts

OUTER = """\
module similarity:
    snakefile: "{snakefile}"
    config: config["similarity"]
    prefix: "study"
use rule * from similarity as similarity_*
"""


def outer_workflow(folder: Path, config: dict[str, Any]) -> list[str]:
    """The command that runs another workflow, which uses all of this one's rules."""
    (folder / "Snakefile").write_text(OUTER.format(snakefile=ROOT / "Snakefile"))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"similarity": config}))
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "2"]
    return [*snakemake, "--configfile", "mine.yaml", "--"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_as_a_module_of_another_workflow(tmp_path: Path) -> None:
    command = outer_workflow(tmp_path, SMALL)
    dry = [*command[:-1], "-n", "--quiet", "rules"]
    plan = succeeded(run(dry, tmp_path))
    counts = job_counts(plan)
    assert counts["similarity_finetune"] == 6
    assert counts["similarity_predict"] == (6 + 2) * 6 + (1 + 2) * (6 + 2)
    assert counts["similarity_all"] == 1

    case = "study/results/nnunet/raw/Dataset001_Cohort/labelsTr/phantom_001.nii.gz"
    succeeded(run([*command, case], tmp_path))
    table = pd.read_csv(tmp_path / "study/results/cohort.tsv", sep="\t", index_col=0)
    assert table.label["phantom_001"] == case
    assert (tmp_path / case).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".snakemake", "Snakefile", "mine.yaml", "study")
    ]


def test_folders_with_a_space_and_a_study_elsewhere(tmp_path: Path) -> None:
    once = {"epochs": 1, "iterations_per_epoch": 1}
    config = {**SMALL, "training": {"base": once, "finetune": once}}
    checkout = Checkout(tmp_path / "my checkout", config)
    study = tmp_path / "my study"
    cells = [
        f"results/scores/{model}/phantom_002.json"
        for model in ("base", "finetuned/phantom_001")
    ]
    succeeded(checkout.run("--directory", str(study), *cells))
    for cell in cells:
        assert (study / cell).is_file()
    assert not checkout.path("results").exists()
    moved = study.rename(tmp_path / "moved study")
    output = succeeded(checkout.run("-n", "--directory", str(moved), *cells))
    assert "Nothing to be done" in output


def test_a_study_that_moved_has_nothing_to_do(
    finished: Checkout, tmp_path: Path
) -> None:
    study = tmp_path / "elsewhere/study"
    for name in ("results", ".snakemake", "config"):
        shutil.copytree(finished.path(name), study / name, copy_function=os.link)
    # All as old as it was; the files lie elsewhere, seen from the scripts.
    output = succeeded(finished.run("-n", "--directory", str(study)))
    assert "Nothing to be done" in output
