"""The workflow's files in one place, the study in another; and as a part of others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
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


def hosted_module(folder: Path) -> tuple[str, dict[str, str]]:
    """Outer Snakefile and environment: the workflow as if fetched from a host.

    Snakemake's copy of the repository lies where it would have put it, so that nothing
    is fetched.
    """
    source = Checkout(folder / "source").folder
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(source)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    said = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    copies = folder / "cache/snakemake/snakemake/source-cache/snakemake-git-cache"
    clone = copies / "github.com/nobody/similarity"
    subprocess.run(["git", "clone", "-q", "--bare", source, clone], check=True)
    place = f'path="Snakefile", commit="{said.stdout.strip()}"'
    text = OUTER.replace('"{snakefile}"', f'github("nobody/similarity", {place})')
    return text, {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}


def local_module() -> tuple[str, dict[str, str]]:
    return OUTER.format(snakefile=ROOT / "Snakefile"), dict(os.environ)


@pytest.mark.parametrize("hosted", [False, True], ids=["local", "hosted"])
def test_as_a_module_of_another_workflow(tmp_path: Path, hosted: bool) -> None:
    text, environment = hosted_module(tmp_path) if hosted else local_module()
    folder = tmp_path / "outer"
    folder.mkdir()
    (folder / "Snakefile").write_text(text)
    (folder / "mine.yaml").write_text(yaml.safe_dump({"similarity": SMALL}))

    def snakemake(*arguments: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return succeeded(
            subprocess.run(
                [*command, "--configfile", "mine.yaml"],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        )

    counts = job_counts(snakemake("-n", "--quiet", "rules"))
    assert counts["similarity_finetune"] == 6
    assert counts["similarity_predict"] == (6 + 2) * 6 + (1 + 2) * (6 + 2)
    assert counts["similarity_all"] == 1

    case = "study/results/nnunet/raw/Dataset001_Cohort/labelsTr/phantom_001.nii.gz"
    snakemake(case, "study/results/cohort.tsv")
    table = pd.read_csv(folder / "study/results/cohort.tsv", sep="\t", index_col=0)
    assert table.label["phantom_001"] == case
    assert (folder / case).is_file()
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".snakemake", "Snakefile", "mine.yaml", "study")
    ]


def test_odd_folders_and_a_study_elsewhere(tmp_path: Path) -> None:
    once = {"epochs": 1, "iterations_per_epoch": 1}
    config = {**SMALL, "training": {"base": once, "finetune": once}}
    checkout = Checkout(tmp_path / 'it\'s "my" ünï ($HOME) 100%', config)
    study = tmp_path / "it's my study"
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


def test_a_folder_that_snakemake_cannot_work_in(tmp_path: Path) -> None:
    result = Checkout(tmp_path / "a{b}").run("-n")
    assert result.returncode != 0
    assert "Rename that folder, or put the workflow elsewhere." in result.stdout
    assert "Traceback" not in result.stdout


def test_a_study_that_moved_has_nothing_to_do(
    finished: Checkout, tmp_path: Path
) -> None:
    study = tmp_path / "elsewhere/study"
    for name in ("results", ".snakemake", "config"):
        shutil.copytree(finished.path(name), study / name, copy_function=os.link)
    # All as old as it was; the files lie elsewhere, seen from the scripts.
    output = succeeded(finished.run("-n", "--directory", str(study)))
    assert "Nothing to be done" in output
