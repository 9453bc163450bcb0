"""Crop, resample and normalise one case under the common plans."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import nnunet

        nnunet.preprocess_case(
            snakemake.input.images,
            snakemake.input.label,
            snakemake.input.plans,
            snakemake.input.dataset,
            snakemake.params.configuration,
            snakemake.output.data.removesuffix(".b2nd"),
        )


if __name__ == "__main__":
    main()
