"""nnU-Net on the given cases from scratch: the base model, and those of the folds."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        warm.run(
            "casesim.training.jobs:train",
            {
                "cases": [path.removesuffix(".b2nd") for path in snakemake.input.cases],
                "plans": snakemake.input.plans,
                "dataset": snakemake.input.dataset,
                "model": str(Path(snakemake.output.plans).parent),
                "training": snakemake.params.training,
                # From the config, so that a change of them trains nothing again.
                "settings": snakemake.config["training"],
                "threads": snakemake.threads,
                "gpu": snakemake.resources.gpu,
                "memory_mb": snakemake.resources.mem_mb,
            },
        )


if __name__ == "__main__":
    main()
