"""The pieces of a row, one below the other: tables with the same header."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        tables = [Path(path).read_text() for path in snakemake.input.parts]
        header = tables[0].partition("\n")[0]
        with atomic_path(snakemake.output.table) as temporary:
            temporary.write_text(
                header + "\n" + "".join(text.partition("\n")[2] for text in tables)
            )


if __name__ == "__main__":
    main()
