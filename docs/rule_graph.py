"""Draw the rules in docs/architecture.md anew: `python docs/rule_graph.py`."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
START, END = "<!-- rules: start -->", "<!-- rules: end -->"


def edges(drawn: str) -> set[tuple[str, str]]:
    """Which rule's files another needs, out of what Snakemake draws."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", drawn))
    arrows = re.findall(r"(id\d+) --> (id\d+)", drawn)
    return {(names[one], names[other]) for one, other in arrows}


def mermaid(arrows: set[tuple[str, str]]) -> str:
    """The graph as a block of a page, in an order that does not change by itself."""
    lines = [f"    {one} --> {other}" for one, other in sorted(arrows)]
    return "\n".join(["```mermaid", "flowchart TB", *lines, "```"])


def draw(folder: Path) -> str:
    """What Snakemake draws for the workflow in `folder` as it is configured there."""
    command = ["-m", "snakemake", "--rulegraph", "mermaid-js", "--nolock"]
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def updated(text: str, graph: str) -> str:
    """The page with another graph in it."""
    before, rest = text.split(START)
    return f"{before}{START}\n{graph}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    graph = mermaid(edges(draw(ROOT)))
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), graph), "utf-8")
