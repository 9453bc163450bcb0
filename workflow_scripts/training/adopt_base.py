"""A network of the user's own as the base model, instead of a new one."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.nnunet import adoption

        adoption.adopt_all(
            list(snakemake.input.network),
            snakemake.input.plans,
            snakemake.input.dataset,
            snakemake.params.configuration,
            Path(snakemake.output.plans).parent,
        )


if __name__ == "__main__":
    main()
