"""A corrected label map, checked as any cohort's; the original stays."""

from typing import TYPE_CHECKING

from casesim.cohort.corrections import import_correction
from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import_correction(
            snakemake.wildcards.case,
            list(snakemake.input.images),
            snakemake.input.corrected,
            snakemake.params.channel_names,
            snakemake.params.labels,
            snakemake.output.label,
            snakemake.params.ignore,
        )


if __name__ == "__main__":
    main()
