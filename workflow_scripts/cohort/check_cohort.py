"""List every problem of the cohort, and stop before training if one is an error."""

import sys
from typing import TYPE_CHECKING

from casesim.cohort.cohort import load_cohort, write_cohort
from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.cohort import checks

        cohort = load_cohort(snakemake.params.cohort)
        problems = checks.check_cohort(cohort, snakemake.threads)
        checks.write_checks(problems, snakemake.log.checks)
        listing = checks.format_checks(problems)
        print(listing)
        failed = any(problem.severity == "error" for problem in problems)
        if not failed:
            write_cohort(cohort, snakemake.params.raw, snakemake.output.cohort)
    # Outside of the log: this list is for the person at the terminal.
    if problems:
        print(f"\n{listing}\n", file=sys.stderr, flush=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
