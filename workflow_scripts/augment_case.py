"""Mirrored and elastically deformed copies of one case, preprocessed as all are."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import nnunet
        from casesim.augmentation import augment

        image, label, spacing = nnunet.read_case(
            snakemake.input.images, snakemake.input.label
        )
        stems = [
            path.removesuffix(".pkl")
            for path in snakemake.output.copies
            if path.endswith(".pkl")
        ]
        for copy, stem in enumerate(stems):
            deformed_image, deformed_label = augment(
                image,
                label,
                snakemake.params.augmentation,
                snakemake.wildcards.case,
                copy,
                snakemake.params.seed,
            )
            nnunet.preprocess_arrays(
                deformed_image,
                deformed_label,
                spacing,
                snakemake.input.plans,
                snakemake.input.dataset,
                snakemake.params.configuration,
                stem,
            )


if __name__ == "__main__":
    main()
