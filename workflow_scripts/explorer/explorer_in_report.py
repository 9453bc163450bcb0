"""The explorer as one folder, which a report can take with it."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from pathlib import Path

        from casesim.explorer import site

        site.copy_files(
            Path(snakemake.input.study).parents[1],
            snakemake.input,
            Path(snakemake.output[0]),
        )


if __name__ == "__main__":
    main()
