"""Case by case, before and after the removal, and what it says on average."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.inference import overlap
        from casesim.pruning import decisions
        from casesim.pruning.comparison import comparison, write_comparison
        from casesim.pruning.summary import summary, write_summary
        from casesim.report import comparison as figure
        from casesim.similarity.matrix import read_text

        removed = {
            Path(path).parent.name: Path(path).read_text(encoding="utf-8").split()
            for path in snakemake.input.removed
        }
        table = comparison(
            [overlap.read_table(path) for path in snakemake.input.before],
            [overlap.read_table(path) for path in snakemake.input.after],
            snakemake.params.models,
            snakemake.params.base_seed,
            removed,
            read_text(snakemake.input.cohort),
            snakemake.params.corrected,
        )
        content = summary(
            table, seed=snakemake.params.seed, patients=snakemake.params.patients
        )
        print(content["verdict"])
        if snakemake.input.decisions:
            decided = decisions.read(
                snakemake.input.decisions[0], snakemake.params.train
            )
            content["decisions"] = decided.summary(snakemake.params.corrected)
            print(content["decisions"]["statement"])
        write_comparison(table, snakemake.output.table)
        write_summary(content, snakemake.output.summary)
        figure.draw(table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
