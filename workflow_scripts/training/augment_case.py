"""Mirrored and elastically deformed copies of one case, preprocessed as all are."""

from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        warm.run(
            "casesim.training.jobs:augment_case",
            {
                "images": list(snakemake.input.images),
                "label": snakemake.input.label,
                "plans": snakemake.input.plans,
                "dataset": snakemake.input.dataset,
                "configuration": snakemake.params.configuration,
                "augmentation": snakemake.params.augmentation,
                "case": snakemake.wildcards.case,
                "seed": snakemake.params.seed,
                "stems": [
                    path.removesuffix(".pkl")
                    for path in snakemake.output.copies
                    if path.endswith(".pkl")
                ],
            },
        )


if __name__ == "__main__":
    main()
