"""The base model's schedule again, from scratch, on the cases that an arm keeps."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        kept = set(Path(snakemake.input.training_cases).read_text().split())
        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        warm.run(
            "casesim.training.jobs:train",
            {
                "cases": [stem for stem in stems if Path(stem).name in kept],
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
