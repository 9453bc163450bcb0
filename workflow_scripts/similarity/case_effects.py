"""Row and column effect of each train case, ranked, with a word for why."""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.report import effects
        from casesim.similarity.effects import case_effects
        from casesim.similarity.matrix import read_matrix

        table = case_effects(read_matrix(snakemake.input.matrix))
        with atomic_path(snakemake.output.table) as temporary:
            table.to_csv(temporary, sep="\t", index=False)
        effects.draw(table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
