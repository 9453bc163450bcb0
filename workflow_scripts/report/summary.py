"""What the run has found, for its end and for whoever comes later."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.report.summary import summarise
        from casesim.similarity.review import read_cases

        comparison = snakemake.input.get("comparison")
        text = summarise(
            json.loads(Path(snakemake.input.clustering).read_text(encoding="utf-8")),
            read_cases(snakemake.input.cases),
            json.loads(Path(comparison).read_text(encoding="utf-8"))
            if comparison
            else None,
            list(snakemake.input.look_at),
        )
        with atomic_path(snakemake.output.text) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
