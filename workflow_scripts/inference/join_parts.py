"""The pieces of a row, one below the other: tables with the same header."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def join(parts: Sequence[str], path: str) -> None:
    """Write the tables below each other."""
    tables = [Path(part).read_text() for part in parts]
    header = tables[0].partition("\n")[0]
    with atomic_path(path) as temporary:
        temporary.write_text(
            header + "\n" + "".join(text.partition("\n")[2] for text in tables)
        )


def main() -> None:
    with logged(snakemake.log[0]):
        join(snakemake.input.tables, snakemake.output.table)
        join(snakemake.input.errors, snakemake.output.errors)


if __name__ == "__main__":
    main()
