"""Train the base model on, on the train cases that are predicted to suit one case."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import selection, table

        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        ranked = table.read([snakemake.input.selection])
        suited = selection.leaned_on(ranked, snakemake.params.top)
        print(f"train cases: {', '.join(suited)}")
        warm.run(
            "casesim.training.jobs:train",
            {
                "cases": [stem for stem in stems if Path(stem).name in suited],
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
