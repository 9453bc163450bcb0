"""How well each score of the train cases finds the known defects, and at what cost."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import pandas as pd

        from casesim.evidence import hours
        from casesim.evidence.detection import detection, suspicion_scores
        from casesim.evidence.truth import read_truth
        from casesim.report import detection as figure
        from casesim.similarity.review import read_cases

        # A case may be called NA.
        cohort = pd.read_csv(
            snakemake.input.cohort, sep="\t", dtype=str, na_filter=False
        )
        quality = [
            json.loads(Path(path).read_text(encoding="utf-8"))
            for path in snakemake.input.label_quality
        ]
        params = snakemake.params
        # Another workflow may have all results below a prefix.
        folder = Path(snakemake.output.table).parents[2]
        table = detection(
            read_truth(cohort, next(iter(snakemake.input.truth), None)),
            suspicion_scores(
                read_cases(snakemake.input.cases),
                {record["case"]: record["label_quality"] for record in quality},
            ),
            {
                part: hours.spent(params.trainings[part], params.cells[part], folder)
                for part in ("rows", "folds")
            },
        )
        with atomic_path(snakemake.output.table) as temporary:
            table.to_csv(temporary, sep="\t", index=False)
        figure.draw(table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
