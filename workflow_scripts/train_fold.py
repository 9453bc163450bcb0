"""The base model's schedule on the pool without one fold, which it may then judge."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import devices, trainer

        options = dict(snakemake.params.training)
        with devices.acquire(snakemake.resources.gpu) as device:
            trainer.train(
                [path.removesuffix(".b2nd") for path in snakemake.input.cases],
                snakemake.input.plans,
                snakemake.input.dataset,
                options.pop("configuration"),
                Path(snakemake.output.plans).parent,
                threads=snakemake.threads,
                device=device,
                memory_mb=snakemake.resources.mem_mb / 2,
                # From the config, so that a change of them trains nothing again.
                checkpoint_minutes=snakemake.config["training"]["checkpoint_minutes"],
                validate_every=snakemake.config["training"]["validate_every"],
                **options,
            )


if __name__ == "__main__":
    main()
