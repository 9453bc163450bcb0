"""What the similarity classifier has found, for the end of a run and whoever comes
later."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import fitting, judging, table
        from casesim.report.adaptive_summary import summarise

        files = snakemake.input
        told, first = None, ""
        if files.new:
            told = table.read(files.new)
            first = str(table.read(files.order)["case"].iloc[0])
        judged = [
            sentence
            for path in files.validation
            for sentence in judging.headlines(json.loads(Path(path).read_text()))
        ]
        summary = json.loads(Path(files.fit).read_text())
        text = summarise(
            told,
            first,
            fitting.describe(summary, snakemake.params.region),
            judged,
            snakemake.params.look_at,
        )
        with atomic_path(snakemake.output.text) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
