"""Crop, resample and normalise one case under the common plans."""

from typing import TYPE_CHECKING

from casesim.files import logged
from casesim.processes import warm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        warm.run(
            "casesim.nnunet.jobs:preprocess_case",
            {
                "images": list(snakemake.input.images),
                # Nothing for a new case.
                "label": snakemake.input.label or None,
                "plans": snakemake.input.plans,
                "dataset": snakemake.input.dataset,
                "configuration": snakemake.params.configuration,
                "stem": snakemake.output.data.removesuffix(".b2nd"),
            },
        )


if __name__ == "__main__":
    main()
