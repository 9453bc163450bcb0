"""nnU-Net on the given cases from scratch: the base model, and those of the folds."""

from typing import TYPE_CHECKING

from casesim.files import logged
from model_training import train_model

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        train_model(snakemake, stems)


if __name__ == "__main__":
    main()
