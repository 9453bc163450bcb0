"""The train cases that one arm removes from the pool."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged
from casesim.pruning import arms, decisions

if TYPE_CHECKING:
    from snakemake.script import snakemake


def read_table(path: str) -> list[dict[str, str]]:
    """The rows of a tab-separated table."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_cases(path: str, cases: Iterable[str]) -> None:
    """One case id a line, sorted."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{case}\n" for case in sorted(cases)))


def read_reviewed() -> list[str]:
    """The cases that the reviewer removes; none for arms that do not ask for them."""
    if not snakemake.input.decisions:
        return []
    decided = decisions.read(snakemake.input.decisions[0], snakemake.params.train)
    decided.refuse_stale(snakemake.input.matrix)
    return decided.of("remove")


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.inference import overlap

        cells = [overlap.read_record(path) for path in snakemake.input.base]
        base = overlap.score_table(cells).set_index("case")
        base_dice = base["dice"][base["region"] == snakemake.params.region].to_dict()
        removed = arms.choose(
            snakemake.wildcards.arm,
            snakemake.params.pool,
            read_table(snakemake.input.clusters),
            base_dice,
            snakemake.params.seed,
            read_reviewed(),
        )
        print(f"{snakemake.wildcards.arm} removes {len(removed)}: {', '.join(removed)}")
        kept = set(snakemake.params.pool) - set(removed)
        write_cases(snakemake.output.training_cases, kept)
        write_cases(snakemake.output.removed_cases, removed)


if __name__ == "__main__":
    main()
