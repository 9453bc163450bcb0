"""What the check before the first submission makes of SLURM's answers."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from workflow.conftest import ROOT

HOOK: dict[str, Any] = runpy.run_path(str(ROOT / "profiles/slurm/preflight.py"))

LISTING = """\
11|RUNNING|{here}|rule_finetune_wildcards_phantom_001
12|PENDING|{here}|rule_cells_finetuned_phantom_001_0_collect_scores_predict
13|RUNNING|{here}|an interactive shell
14|RUNNING|{there}|rule_finetune_wildcards_phantom_002
15|RUNNING|{here}|rule_odd|comment
"""


def test_only_snakemake_s_jobs_of_this_folder_count(tmp_path: Path) -> None:
    listing = LISTING.format(here=tmp_path, there=tmp_path.parent)
    found = list(HOOK["living_jobs"](listing, str(tmp_path)))
    assert [(job.id, job.state) for job in found] == [
        *(("11", "RUNNING"), ("12", "PENDING"), ("15", "RUNNING"))
    ]
    assert found[0].task == "finetune_wildcards_phantom_001"


def test_a_folder_under_two_names_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    listing = f"7|RUNNING|{tmp_path}/link|rule_a"
    assert list(HOOK["living_jobs"](listing, str(tmp_path / "real")))


def test_every_living_job_is_in_the_command_that_ends_them() -> None:
    jobs = [HOOK["LivingJob"](str(n), "RUNNING", f"task{n}") for n in range(1, 13)]
    text = HOOK["describe_living"](jobs)
    assert "12 SLURM job(s)" in text
    assert "and 2 more" in text
    assert text.endswith("scancel 1 2 3 4 5 6 7 8 9 10 11 12")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "sbatch: error: invalid partition specified: x\n"
            "allocation failure: Invalid partition name specified\n",
            "invalid partition specified: x; Invalid partition name specified",
        ),
        (
            "allocation failure: Requested node configuration is not available\n",
            "Requested node configuration is not available",
        ),
        ("", ""),
    ],
)
def test_slurm_s_reason(said: str, expected: str) -> None:
    assert HOOK["reason"](said) == expected


def test_a_refusal_names_jobs_request_and_reason() -> None:
    command = "sbatch --parsable --comment x -p gone -t 15 --mem 8000 --gpus=1 --wrap=y"
    summary = HOOK["summary"](command, ["c", "b", "a", "d"])
    assert summary == "a, b, c and 1 more (-p gone -t 15 --mem 8000 --gpus=1)"
    text = HOOK["describe_refusals"]({summary: "no such partition"})
    assert f"{summary}: no such partition" in text
    assert "docs/slurm.md" in text


def test_a_host_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Exception, match="start the run on a host that submits jobs"):
        HOOK["squeue"]()
