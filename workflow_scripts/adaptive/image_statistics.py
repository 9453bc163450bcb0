"""Intensity statistics of preprocessed cases, by case id."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import confidence, table
        from casesim.nnunet.preprocessing import load_preprocessed

        stems = [path.removesuffix(".b2nd") for path in snakemake.input.cases]
        statistics = {
            Path(stem).name: confidence.image_statistics(load_preprocessed(stem)[0])
            for stem in stems
        }
        table.write_json(statistics, snakemake.output.statistics)


if __name__ == "__main__":
    main()
