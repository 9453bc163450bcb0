"""The most improved and the most worsened case: reference, before and after."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import images
        from casesim.pruning.comparison import extremes, read_comparison
        from casesim.report import overlays

        cases = list(snakemake.params.cases)
        table = read_comparison(snakemake.input.table)
        shown = []
        for word, case, change in extremes(table, **snakemake.params.model):
            number = cases.index(case)
            image, spacing = images.read_axial(snakemake.input.images[number])
            reference, before, after = (
                images.read_axial(paths[number])[0]
                for paths in (
                    snakemake.input.labels,
                    snakemake.input.before,
                    snakemake.input.after,
                )
            )
            title = f"{case}\n{word}: mean Dice {change:+.3f}"
            shown.append(
                overlays.Overlay(title, image, reference, before, after, spacing)
            )
        overlays.draw(
            shown,
            snakemake.params.labels,
            snakemake.output.png,
            snakemake.output.svg,
        )


if __name__ == "__main__":
    main()
