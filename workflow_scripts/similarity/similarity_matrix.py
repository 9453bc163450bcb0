"""The similarity matrix, over the mean of the labels and for each region.

Input: the tables of `collect_scores`, one for each model fine-tuned on a train case.
Output: train cases (rows) by test cases (columns): mean Dice over the foreground
labels, how many labels it leaves out as undefined, and Dice of each region.
"""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    import pandas as pd
    from snakemake.script import snakemake


def write(matrix: "pd.DataFrame", path: str) -> None:
    """Write one matrix, its first column being the train cases."""
    from casesim.inference import overlap

    with atomic_path(path) as temporary:
        overlap.write_table(matrix, temporary, index=True)


def main() -> None:
    """Lay the rows of all models below each other."""
    with logged(snakemake.log[0]):
        import pandas as pd

        from casesim.inference import overlap
        from casesim.similarity.matrix import from_scores

        train, test = snakemake.params.train, snakemake.params.test
        table = pd.concat([overlap.read_table(path) for path in snakemake.input.rows])
        for region, path in zip(
            snakemake.params.regions, snakemake.output.regions, strict=True
        ):
            write(from_scores(table, region, train, test), path)
        undefined = from_scores(table, overlap.MEAN, train, test, "n_undefined")
        mean = from_scores(table, overlap.MEAN, train, test)
        dropped = int(undefined.to_numpy().sum())
        print(
            f"{dropped} of {mean.size * len(snakemake.params.labels)} Dice values are "
            "undefined (label in neither map) and left out of the means."
        )
        write(undefined, snakemake.output.undefined)
        write(mean, snakemake.output.matrix)


if __name__ == "__main__":
    main()
