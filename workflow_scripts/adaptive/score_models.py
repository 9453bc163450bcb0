"""Dice of several segmentations of one case against its label."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import images
        from casesim.adaptive import table

        named = zip(snakemake.params.models, snakemake.input.label_maps, strict=True)
        scores = table.score_case(
            snakemake.wildcards.case,
            ((model, images.read_label_map(path)) for model, path in named),
            images.read_label_map(snakemake.input.label),
            snakemake.params.labels,
            snakemake.params.regions,
            snakemake.params.ignore,
        )
        table.write(scores, snakemake.output.scores)


if __name__ == "__main__":
    main()
