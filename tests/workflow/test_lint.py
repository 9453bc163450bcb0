"""Snakemake's own linter and formatter."""

import shutil
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT, Checkout, succeeded


def test_snakemake_lint(tmp_path: Path) -> None:
    result = Checkout(tmp_path).run("--lint")
    assert "your workflow is in a good condition" in succeeded(result)


def test_snakefmt() -> None:
    command = shutil.which("snakefmt", path=str(Path(sys.executable).parent))
    assert command, "snakefmt is in requirements.txt"
    result = subprocess.run(
        [command, "--check", "Snakefile", "rules"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
