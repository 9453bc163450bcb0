"""Bring one case without a label into nnU-Net's raw format, in imagesTs."""

from typing import TYPE_CHECKING

from casesim.cohort.cases import Case
from casesim.cohort.importing import import_case
from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        options = snakemake.params.cohort
        import_case(
            Case.from_record(snakemake.params.case),
            dict(options["label_map"]),
            snakemake.output.images,
            None,
            options["phantom"],
            options["seed"],
        )


if __name__ == "__main__":
    main()
