"""Everything that this stage knows of each model on each case, in one table."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import table

        gathered = table.gather(
            table.read(snakemake.input.features),
            table.read(snakemake.input.scores),
            snakemake.params.roles,
        )
        table.write(gathered, snakemake.output.table)


if __name__ == "__main__":
    main()
