"""Learn from the calibration cases how good a segmentation without a label is.

Input: features and scores of all models on calibration cases, and the base model's
scores of the train cases. No held-out or new case.
Output: what was learnt, its predictions out of fold, and how good those are.
"""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import fitting, table
        from casesim.inference import overlap

        base = [overlap.read_record(path) for path in snakemake.input.base]
        params = snakemake.params
        fitted = fitting.fit_all(
            table.read(snakemake.input.features),
            table.read(snakemake.input.scores),
            overlap.score_table(base),
            params.level,
            params.seed,
            fitting.kinds_of_case(
                params.calibration, params.phantom, params.seed_of_cohort
            ),
            snakemake.threads,
            patients=params.patients,
        )
        fitting.save(fitted.fits, snakemake.output.fit)
        table.write(fitted.out_of_fold, snakemake.output.out_of_fold)
        table.write_json(fitted.summary, snakemake.output.summary)
        print(fitting.describe(fitted.summary, params.region))


if __name__ == "__main__":
    main()
