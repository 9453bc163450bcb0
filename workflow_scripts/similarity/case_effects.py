"""Which train cases to review first: their effects, and which error each looks like."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def read_json(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def main() -> None:
    with logged(snakemake.log[0]):
        import pandas as pd

        from casesim.cohort.channels import read_channels
        from casesim.inference import errors, overlap
        from casesim.report import effects as figure
        from casesim.similarity.clustering import read_clusters
        from casesim.similarity.edits import read_edits
        from casesim.similarity.effects import case_effects
        from casesim.similarity.kinds import classify
        from casesim.similarity.matrix import read_matrix
        from casesim.similarity.review import review, write_cases
        from casesim.similarity.signatures import positions, signatures

        train, pool = snakemake.params.train, snakemake.params.pool
        labels = snakemake.params.labels

        rows = [errors.read_table(path) for path in snakemake.input.rows]
        cells = [overlap.read_record(path) for path in snakemake.input.base]
        outside = [read_json(path) for path in snakemake.input.label_quality]
        dice = overlap.dice_by_case(cells, snakemake.params.region)
        regions = positions(snakemake.params.regions, labels)
        by_base = errors.of_one_model(cells, list(labels), pool)
        changes = read_edits(snakemake.input.edits)
        alone = signatures(None, by_base, regions, changes=changes)
        found = signatures(
            errors.from_tables(rows, list(labels)).select(
                [f"finetuned/{case}" for case in train], pool
            ),
            by_base,
            regions,
            patients=snakemake.params.patients,
            changes=changes,
        )
        table = review(
            case_effects(
                read_matrix(snakemake.input.matrix), snakemake.params.patients
            ),
            classify(found, sorted(train), read_channels(snakemake.input.channels)),
            read_clusters(snakemake.input.clusters),
            pd.DataFrame(
                {
                    "base_dice": dice,
                    "base_suspicion": classify(alone, sorted(train))["suspicion"],
                }
            ).loc[sorted(train)],
            {record["case"]: record["label_quality"] for record in outside},
        )
        with atomic_path(snakemake.output.table) as temporary:
            write_cases(table, temporary)
        with atomic_path(snakemake.output.signatures) as temporary:
            found.table.to_csv(temporary, sep="\t", index=False)
        figure.draw(table, snakemake.output.png, snakemake.output.svg)


if __name__ == "__main__":
    main()
