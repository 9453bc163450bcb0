"""List every problem of the cohort, and stop before training if one is an error."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.cohort.loading import load_cohort
from casesim.cohort.table import write_cohort
from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.cohort import gate
        from casesim.cohort.checks import listing
        from casesim.cohort.fingerprints import Fingerprints

        cohort = load_cohort(snakemake.params.cohort)
        results = Path(snakemake.log.checks).parent
        problems = gate.check_once(
            cohort,
            Fingerprints(),
            results,
            snakemake.threads,
            snakemake.resources.mem_mb * 1e6,
        )
        listing.write_checks(problems, snakemake.log.checks)
        text = listing.format_checks(problems)
        print(text)
        failed = any(problem.severity == "error" for problem in problems)
        if not failed:
            # Beside the table: another workflow may put all results below a prefix.
            write_cohort(
                cohort, results / snakemake.params.raw, snakemake.output.cohort
            )
    # Outside of the log: this list is for the person at the terminal.
    if problems:
        print(f"\n{text}\n", file=sys.stderr, flush=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
