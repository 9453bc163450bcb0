"""cleanlab's score of one case, by the model that was trained without it."""

from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        warm.run(
            "casesim.evidence.jobs:label_quality",
            {
                "checkpoint": snakemake.input.checkpoint,
                "stem": snakemake.input.data.removesuffix(".b2nd"),
                "score": snakemake.output.score,
                "case": snakemake.wildcards.case,
                "fold": snakemake.params.fold,
                "foreground": snakemake.params.foreground,
                "options": snakemake.params.options,
                "threads": snakemake.threads,
                "gpu": snakemake.resources.gpu,
            },
        )


if __name__ == "__main__":
    main()
