"""What the hooks make of SLURM's answers."""

import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workflow.conftest import ROOT

HOOK: dict[str, Any] = runpy.run_path(str(ROOT / "profiles/slurm/hooks.py"))

LISTING = """\
11|RUNNING|2026-01-01T00:00:00|{here}|rule_finetune_wildcards_phantom_001
12|PENDING|2026-01-01T00:00:00|{here}|rule_cells_finetuned_phantom_001_0_collect_scores_predict
13|RUNNING|2026-01-01T00:00:00|{here}|an interactive shell
14|RUNNING|2026-01-01T00:00:00|{there}|rule_finetune_wildcards_phantom_002
15|RUNNING|2026-01-01T00:00:00|{here}|rule_odd|comment
"""


def test_only_snakemake_s_jobs_of_this_folder_count(tmp_path: Path) -> None:
    listing = LISTING.format(here=tmp_path, there=tmp_path.parent)
    found = list(HOOK["jobs_of"](listing, str(tmp_path)))
    assert [(job.id, job.state) for job in found] == [
        *(("11", "RUNNING"), ("12", "PENDING"), ("15", "RUNNING"))
    ]
    assert found[0].task == "finetune_wildcards_phantom_001"


def test_a_folder_under_two_names_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    listing = f"7|RUNNING|2026-01-01T00:00:00|{tmp_path}/link|rule_a"
    assert list(HOOK["jobs_of"](listing, str(tmp_path / "real")))


def test_every_living_job_is_in_the_command_that_ends_them() -> None:
    jobs = [HOOK["QueuedJob"](str(n), "RUNNING", "", f"task{n}") for n in range(1, 13)]
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


FAKE = """\
#!/bin/sh
echo call >> {folder}/calls
if [ "$(wc -l < {folder}/calls)" -lt {answers_at} ]; then
  echo "sbatch: error: Batch job submission failed: {why}" >&2
  exit 1
fi
echo "warned" >&2
echo 77
"""


@pytest.mark.parametrize(
    ("answers_at", "why", "patience", "status", "calls"),
    [
        (1, "", 60, 0, 1),
        (3, "Unable to contact slurm controller (connect failure)", 60, 0, 3),
        (9, "Unable to contact slurm controller (connect failure)", 0, 1, 1),
        (9, "Socket timed out on send/recv operation", 60, 1, 1),
    ],
)
def test_sbatch_waits_for_the_controller_alone(
    tmp_path: Path, answers_at: int, why: str, patience: int, status: int, calls: int
) -> None:
    fake = tmp_path / "sbatch"
    fake.write_text(FAKE.format(folder=tmp_path, answers_at=answers_at, why=why))
    fake.chmod(0o755)
    result = subprocess.run(
        [str(ROOT / "profiles/slurm/bin/sbatch"), "--parsable"],
        env=os.environ
        | {"CASESIM_SBATCH": str(fake), "CASESIM_SBATCH_PATIENCE": str(patience)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status
    assert len((tmp_path / "calls").read_text().splitlines()) == calls
    assert result.stdout == ("77\n" if status == 0 else "")
    assert ("warned" if status == 0 else why) in result.stderr


def test_the_configuration_is_known_while_the_controller_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for name, script in (
        ("sbatch", "exit 0"),
        (
            "scontrol",
            f'[ -e {tmp_path}/away ] && exit 1\necho "MinJobAge = 300 sec $@"',
        ),
    ):
        (real / name).write_text(f"#!/bin/sh\n{script}\n")
        (real / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}:/usr/bin:/bin")
    for name in ("CASESIM_SBATCH", "CASESIM_SCONTROL", "CASESIM_SLURM_CONFIG"):
        monkeypatch.setenv(name, "")

    def scontrol(*arguments: str) -> str:
        # By a shell, which finds it as the plugin does.
        command = " ".join(("scontrol", *arguments))
        return subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False
        ).stdout

    HOOK["be_patient"](tmp_path)
    (tmp_path / "away").touch()
    assert scontrol("show", "config") == "MinJobAge = 300 sec show config\n"
    assert scontrol("show", "nodes") == ""
    (tmp_path / "away").unlink()
    assert scontrol("show", "nodes") == "MinJobAge = 300 sec show nodes\n"
    # Once is enough: a second start of the hooks finds its own commands.
    path = os.environ["PATH"]
    HOOK["be_patient"](tmp_path)
    assert os.environ["PATH"] == path
