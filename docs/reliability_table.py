"""Write the table of docs/reliability.md from what `make reliability` has counted.

    python docs/reliability_table.py reliability.json ...
    python docs/reliability_table.py --add reliability.json ...

No number in the table is typed in. Several files, of several machines or parts of the
tests, are added up; with --add, to what the table holds already.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).with_name("reliability.md")
START, END = "<!-- counts: start -->", "<!-- counts: end -->"


def table(counts: Counter[str]) -> str:
    rows = [f"| {name} | {number:,} |" for name, number in sorted(counts.items())]
    return "\n".join(["| | |", "|---|---|", *rows])


def fill(page: str, counts: Counter[str]) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE} has lost its marks {START} and {END}")
    return f"{before}{START}\n{table(counts)}\n{END}{after}"


def counted(page: str) -> Counter[str]:
    """What the table of the page holds."""
    content = page.partition(START)[2].partition(END)[0]
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \|$", content, re.MULTILINE)
    return Counter({name: int(number.replace(",", "")) for name, number in rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    counts = counted(PAGE.read_text()) if arguments.add else Counter()
    for path in arguments.paths:
        content = json.loads(Path(path).read_text())
        content.pop("seed", None)
        counts.update(content)
    PAGE.write_text(fill(PAGE.read_text(), counts))


if __name__ == "__main__":
    main()
