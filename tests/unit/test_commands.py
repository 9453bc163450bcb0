"""The commands that the documentation shows."""

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "config").glob("*.*")),
]
COMMAND = re.compile(r'^(?:# +)?(?:run=")?(snakemake [^"\n]*?)(?: +#.*|")?$', re.M)


def commands() -> list[str]:
    """Whole commands of one line that name a config and end where a target may."""
    found = {
        match[1].strip()
        for file in FILES
        if file.exists()
        for match in COMMAND.finditer(file.read_text())
    }
    return sorted(
        command
        for command in found
        if "--configfile" in command
        # One that has its target already.
        and command.split()[1].startswith("-")
        and " -- " not in command
        and "..." not in command
        and not command.endswith("\\")
    )


def test_there_are_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", commands())
def test_a_target_may_be_put_at_the_end(command: str) -> None:
    """`--configfile a.yaml matrix` would take the target for another config file."""
    arguments = get_argument_parser().parse_args([*shlex.split(command)[1:], "matrix"])
    assert "matrix" in arguments.targets
    assert all(str(file).endswith(".yaml") for file in arguments.configfile)
