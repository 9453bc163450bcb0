"""What is known of one case without its label: of each model, and of all together.

Input: the label-free cells of all models on the case, and their label maps.
Output: a table, one row for each model and region.
"""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import images
        from casesim.adaptive import agreement, table

        models = list(snakemake.params.models)
        label_maps = dict(zip(models, snakemake.input.label_maps, strict=True))
        labels = snakemake.params.labels
        regions = {**labels, **snakemake.params.regions}
        agreements = agreement.agreement(
            models, lambda model: images.read_label_map(label_maps[model]), regions
        )
        cells = [table.read_cell(path) for path in snakemake.input.cells]
        features = table.feature_table(cells, agreements, list(labels))
        table.write(features, snakemake.output.features)


if __name__ == "__main__":
    main()
