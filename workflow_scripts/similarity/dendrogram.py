"""The tree of the train cases, with its clusters, the cut and the bootstrap support."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.report import dendrogram
        from casesim.similarity.clustering import read_clusters
        from casesim.similarity.tree import read_linkage

        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        dendrogram.draw(
            read_linkage(snakemake.input.linkage),
            read_clusters(snakemake.input.clusters),
            snakemake.output.png,
            snakemake.output.svg,
            metric=summary["metric"],
            cut_distance=summary["cut_distance"],
            support=summary["support"],
        )


if __name__ == "__main__":
    main()
