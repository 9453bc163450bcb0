"""How well each score of the train cases finds the planted defects."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import pandas as pd

        from casesim.evidence.detection import detection, suspicion_scores
        from casesim.inference import overlap
        from casesim.report import detection as figure
        from casesim.similarity.clustering import read_clusters

        def read(path: str) -> pd.DataFrame:
            # A case may be called NA: only an empty field is an undefined value.
            return pd.read_csv(
                path,
                sep="\t",
                dtype={"case": str, "planted": str},
                keep_default_na=False,
                na_values={"donor_effect": [""]},
            )

        cells = [overlap.read_record(path) for path in snakemake.input.base]
        base = overlap.score_table(cells)
        base = base[base["region"] == snakemake.params.region]
        quality = [
            json.loads(Path(path).read_text(encoding="utf-8"))
            for path in snakemake.input.label_quality
        ]
        cohort = read(snakemake.input.cohort)
        scores = suspicion_scores(
            read_clusters(snakemake.input.clusters),
            read(snakemake.input.effects).set_index("case")["donor_effect"],
            base.set_index("case")["dice"],
            {record["case"]: record["label_quality"] for record in quality},
        )
        table = detection(cohort, scores)
        with atomic_path(snakemake.output.table) as temporary:
            table.to_csv(temporary, sep="\t", index=False)
        figure.draw(table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
