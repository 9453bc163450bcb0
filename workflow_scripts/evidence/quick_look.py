"""Which cases to review before any fine-tune."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.cohort.channels import read_channels
        from casesim.inference import errors, overlap
        from casesim.similarity.edits import read_edits
        from casesim.similarity.kinds import classify
        from casesim.similarity.review import review_quickly
        from casesim.similarity.signatures import positions, signatures

        pool, labels = snakemake.params.pool, snakemake.params.labels
        cells = [overlap.read_record(path) for path in snakemake.input.base]
        outside = [
            json.loads(Path(path).read_text(encoding="utf-8"))
            for path in snakemake.input.label_quality
        ]

        found = signatures(
            None,
            errors.of_one_model(cells, list(labels), pool),
            positions(snakemake.params.regions, labels),
            changes=read_edits(snakemake.input.edits),
        )
        table = review_quickly(
            classify(found, pool, read_channels(snakemake.input.channels)),
            overlap.dice_by_case(cells, snakemake.params.region),
            {record["case"]: record["label_quality"] for record in outside},
        )
        for content, path in (
            (table, snakemake.output.table),
            (found.table, snakemake.output.signatures),
        ):
            with atomic_path(path) as temporary:
                content.to_csv(temporary, sep="\t", index=False)


if __name__ == "__main__":
    main()
