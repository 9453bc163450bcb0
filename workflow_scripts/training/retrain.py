"""The base model's schedule again, from scratch, on the cases that an arm keeps."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from model_training import train_model

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        kept = set(Path(snakemake.input.training_cases).read_text().split())
        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        train_model(snakemake, [stem for stem in stems if Path(stem).name in kept])


if __name__ == "__main__":
    main()
