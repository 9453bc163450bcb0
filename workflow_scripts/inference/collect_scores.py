"""One row of the matrix: the scores of one model on all its test cases, with Dice.

Input: the score files (JSON) of the model's cells.
Output: a table of scores, one row for each test case and region, and a table of errors,
one row for each test case.
"""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    """Gather the cells of one model."""
    with logged(snakemake.log[0]):
        from casesim.inference import errors, overlap

        records = [overlap.read_record(path) for path in snakemake.input.scores]
        with atomic_path(snakemake.output.table) as temporary:
            overlap.write_table(overlap.score_table(records), temporary)
        with atomic_path(snakemake.output.errors) as temporary:
            overlap.write_table(errors.error_table(records), temporary)


if __name__ == "__main__":
    main()
