"""Train the base model on with the augmented copies of one case alone."""

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
                "cases": [
                    path.removesuffix(".pkl")
                    for path in snakemake.input.copies
                    if path.endswith(".pkl")
                ],
                "plans": snakemake.input.plans,
                "dataset": snakemake.input.dataset,
                "model": str(Path(snakemake.output.plans).parent),
                "start_from": snakemake.input.base,
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
