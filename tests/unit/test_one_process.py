"""Snakemake with all jobs in its own process."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import one_process

ROOT = Path(__file__).parents[2]

SNAKEFILE = """
rule all:
    input: "one.txt", "two.txt"

rule note:
    output: "{name}.txt"
    log: "{name}.log"
    benchmark: "{name}.tsv"
    params: word="said"
    script: "note.py"

rule fail:
    output: "never.txt"
    log: "never.log"
    shell: "touch {output}"
"""

NOTE = """
import os
from pathlib import Path
assert __name__ == "__main__"
Path(snakemake.output[0]).write_text(f"{snakemake.params.word} {os.getpid()}")
"""


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.one_process", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_jobs_share_a_process_and_what_is_done_is_kept(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "note.py").write_text(NOTE)
    assert start(tmp_path).returncode == 0
    said = {(tmp_path / f"{name}.txt").read_text() for name in ("one", "two")}
    assert len(said) == 1
    assert re.fullmatch(r"said \d+", said.pop())
    assert (tmp_path / "one.tsv").read_text().startswith("s\th:m:s")
    (tmp_path / "two.txt").unlink()
    one = (tmp_path / "one.txt").stat().st_mtime_ns
    again = start(tmp_path, "all", "never.txt")
    # A command that no predictor serves is not run, and fails its job alone.
    assert again.returncode != 0
    assert "fail is not a client of a predictor" in again.stderr
    assert not (tmp_path / "never.txt").exists()
    assert (tmp_path / "two.txt").exists() == ("rule note" in again.stderr)
    assert (tmp_path / "one.txt").stat().st_mtime_ns == one


def test_every_client_of_the_workflow_is_understood() -> None:
    """All commands in the rules are clients of a predictor whose room serves them."""
    found = set()
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.findall(r"\n    shell:\n((?: +['\"].*\n)+)", path.read_text()):
            command = ast.literal_eval(f"({block})")
            match = one_process.CLIENT.fullmatch(command)
            assert match is not None, command
            found.add(match["script"].strip('"'))
    assert found == {"$CASESIM_PREDICT", "$CASESIM_LABEL_FREE", "$CASESIM_SEGMENT"}
