"""Draw the rules in docs/architecture.md anew: `python docs/rule_graph.py`."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
START, END = "<!-- rules: start -->", "<!-- rules: end -->"


def mermaid() -> str:
    """The rule graph of the default configuration, without Snakemake's colours."""
    command = ["--rulegraph", "mermaid-js", "--nolock"]
    drawn = subprocess.run(
        [sys.executable, "-m", "snakemake", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kept = re.findall(
        r"^(?:flowchart|\s*id\d+(?:\[| -->)).*$", drawn, flags=re.MULTILINE
    )
    return "\n".join(["```mermaid", *kept, "```"])


def updated(text: str, graph: str) -> str:
    """The page with another graph in it."""
    before, rest = text.split(START)
    return f"{before}{START}\n{graph}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), mermaid()), "utf-8")
