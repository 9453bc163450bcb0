"""Whether other columns and other trainings would name the same worst cluster."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    import pandas as pd
    from snakemake.script import snakemake


def read_refits() -> "pd.DataFrame | None":
    """The rows of the refitted cases, as the similarity matrix has them."""
    import pandas as pd

    from casesim.inference import overlap
    from casesim.similarity.matrix import from_scores

    if not snakemake.params.refitted:
        return None
    return from_scores(
        pd.concat([overlap.read_table(path) for path in snakemake.input.refits]),
        snakemake.params.similarity["region"],
        snakemake.params.refitted,
        snakemake.params.test,
        fit="refitted",
    )


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.report import stability as figure
        from casesim.similarity import stability
        from casesim.similarity.clustering import read_clusters
        from casesim.similarity.matrix import read_matrix

        result = stability.stability(
            read_matrix(snakemake.input.matrix),
            read_clusters(snakemake.input.clusters),
            read_refits(),
            metric=snakemake.params.similarity["distance"],
            patients=snakemake.params.patients,
            **snakemake.params.clusters,
        )
        print(result.summary["statement"])
        stability.write(result, snakemake.output.table, snakemake.output.summary)
        figure.draw(result.table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
