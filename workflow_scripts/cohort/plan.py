"""nnU-Net's fingerprint and plans, once, over the pool."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.nnunet import planning

        planning.plan(
            Path(snakemake.output.raw_dataset).parent,
            Path(snakemake.output.plans).parent,
            snakemake.params.pool,
            snakemake.params.channel_names,
            snakemake.params.labels,
            snakemake.params.nnunet,
            snakemake.threads,
        )


if __name__ == "__main__":
    main()
