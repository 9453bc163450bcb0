"""Train the base model on with the augmented copies of one case alone."""

from typing import TYPE_CHECKING

from casesim.files import logged
from model_training import train_model

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        train_model(
            snakemake,
            [
                path.removesuffix(".pkl")
                for path in snakemake.input.copies
                if path.endswith(".pkl")
            ],
        )


if __name__ == "__main__":
    main()
