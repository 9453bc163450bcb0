"""The similarity matrix as a heat map, in leaf order."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.report import heatmap
        from casesim.similarity.clustering import read_clusters
        from casesim.similarity.matrix import read_matrix
        from casesim.similarity.tree import read_linkage

        heatmap.draw(
            read_matrix(snakemake.input.matrix),
            read_linkage(snakemake.input.linkage),
            read_clusters(snakemake.input.clusters),
            snakemake.output.png,
            snakemake.output.svg,
            region=snakemake.params.region,
        )


if __name__ == "__main__":
    main()
