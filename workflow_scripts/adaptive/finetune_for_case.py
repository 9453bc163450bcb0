"""Train the base model on, on the train cases that are predicted to suit one case."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged
from model_training import train_model

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import selection, table

        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        ranked = table.read([snakemake.input.selection])
        suited = selection.suited(ranked, snakemake.params.top)
        print(f"train cases: {', '.join(suited)}")
        train_model(snakemake, [stem for stem in stems if Path(stem).name in suited])


if __name__ == "__main__":
    main()
