"""nnU-Net's fingerprint and plans, once, over the pool."""

from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.cohort import gate
        from casesim.cohort.fingerprints import Fingerprints
        from casesim.cohort.loading import load_cohort
        from casesim.nnunet import planning

        # From here on, hours are spent. That the cohort has passed its check is no
        # input: a held-out case more would train everything again.
        results = Path(snakemake.output.plans).parents[3]
        cohort = load_cohort(snakemake.config["cohort"])
        problems = gate.check_once(cohort, Fingerprints(), results, snakemake.threads)
        gate.refuse_errors(problems, str(results / "checks.tsv"))

        planning.plan(
            Path(snakemake.output.raw_dataset).parent,
            Path(snakemake.output.plans).parent,
            snakemake.params.pool,
            snakemake.params.channel_names,
            snakemake.params.labels,
            snakemake.params.nnunet,
            snakemake.threads,
            next(iter(snakemake.input.own_plans), None),
            snakemake.params.regions_class_order,
        )


if __name__ == "__main__":
    main()
