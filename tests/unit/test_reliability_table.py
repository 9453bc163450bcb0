"""The table of counts is made of counts, and can be added to."""

import runpy
from collections import Counter
from pathlib import Path

TABLE = runpy.run_path(
    str(Path(__file__).parents[2] / "docs/reliability_table.py"), run_name="table"
)


def test_what_is_in_the_table_is_read_again() -> None:
    counts = Counter({"kills of client, SIGKILL": 7, "requests tried": 10_000, "b": 0})
    page = TABLE["fill"](f"before {TABLE['START']} {TABLE['END']} after", counts)
    assert page.startswith("before ")
    assert page.endswith(" after")
    assert "| requests tried | 10,000 |" in page
    assert TABLE["counted"](page) == counts
    assert TABLE["fill"](page, TABLE["counted"](page)) == page
