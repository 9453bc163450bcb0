"""Train the base model on, on the pool or what an arm keeps of it: the control.

As many iterations as a fine-tune, and from the same weights: whatever a fine-tuned
model has beyond this comes from the choice of cases.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from model_training import train_model

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        kept = {
            name
            for path in snakemake.input.training_cases
            for name in Path(path).read_text().split()
        } or {Path(stem).name for stem in stems}
        train_model(snakemake, [stem for stem in stems if Path(stem).name in kept])


if __name__ == "__main__":
    main()
