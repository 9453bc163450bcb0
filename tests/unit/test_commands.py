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


PAGES = [*FILES, *sorted((ROOT / "docs/benchmarks").glob("*.md"))]
# A line, or what a yaml comment goes on with in the next one.
BENCHMARK = re.compile(r"python -m benchmarks\.(\w+)((?:[^`\n\\]|\\\n(?:# )?)*)")


def benchmarks() -> list[tuple[str, tuple[str, ...]]]:
    """Modules and options of all commands that measure."""
    return sorted(
        {
            (match[1], tuple(re.findall(r"(?<!\S)--[a-z-]+", match[2])))
            for page in PAGES
            for match in BENCHMARK.finditer(page.read_text())
        }
    )


def source(module: str) -> str:
    """A benchmark's text, and that of the benchmarks that it imports."""
    text = (ROOT / f"benchmarks/{module}.py").read_text()
    used = {
        name
        for line in re.findall(r"^from benchmarks import (.*)$", text, re.MULTILINE)
        for name in re.findall(r"(\w+)(?: as \w+)?(?:, |$)", line)
    } | set(re.findall(r"^from benchmarks\.(\w+) import", text, re.MULTILINE))
    return "\n".join(
        [text, *((ROOT / f"benchmarks/{name}.py").read_text() for name in used)]
    )


def test_benchmarks_know_the_options_that_pages_name() -> None:
    assert len(benchmarks()) > 20
    unknown = [
        (module, option)
        for module, options in benchmarks()
        for option in options
        if option != "--help" and f'"{option}"' not in source(module)
    ]
    assert unknown == []


def test_scripts_that_pages_name_are_there() -> None:
    found = {
        name
        for page in PAGES
        for name in re.findall(r"python ((?:docs|tests)/\w+\.py)", page.read_text())
    }
    assert len(found) >= 4
    for name in found:
        assert (ROOT / name).is_file(), name
