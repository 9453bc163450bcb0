"""Cluster the rows of the similarity matrix, cut the tree, name the worst cluster."""

import json
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.similarity.clustering import cluster
        from casesim.similarity.matrix import read_matrix

        options = snakemake.params.clusters
        result = cluster(
            read_matrix(snakemake.input.matrix),
            metric=snakemake.params.similarity["distance"],
            number=options["number"],
            min_size=options["min_size"],
            max_removed_share=options["max_removed_share"],
            patients=snakemake.params.patients,
        )
        print(result.summary["statement"])
        for table, path in (
            (result.linkage, snakemake.output.linkage),
            (result.leaf_order, snakemake.output.leaf_order),
            (
                result.clusters.assign(
                    worst=result.clusters["worst"].map({True: "true", False: "false"})
                ),
                snakemake.output.clusters,
            ),
        ):
            with atomic_path(path) as temporary:
                table.to_csv(temporary, sep="\t", index=False)
        with atomic_path(snakemake.output.summary) as temporary:
            temporary.write_text(json.dumps(result.summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
