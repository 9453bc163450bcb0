"""Which cells a model has, and which of them share a submission to a cluster.

Standard library only: each job of a cluster asks again.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

# Models of a single case. They segment the pool alone: held-out cases must not be seen
# by any decision.
OF_ONE_CASE = ("finetuned", "refitted")
# Snakemake plans a group of more jobs for minutes.
MAX_PER_GROUP = 200
# Cells that pay for anything: what a predictor expects that is to compile in any case.
ALWAYS_ENOUGH = 10**9


class Cells:
    """The cells of all models: one for each case that a model segments.

    `pool` and `test` are case ids; models are named as in `Study`. `per_group` is how
    many cells share a submission, None where there are none.
    """

    def __init__(
        self, pool: Sequence[str], test: Sequence[str], per_group: int | None
    ) -> None:
        self._cases = {True: list(pool), False: list(test)}
        # Local tables are gathered in the same parts as a cluster's.
        self._size = per_group or MAX_PER_GROUP
        self.are_grouped = per_group is not None

    def of(self, model: str) -> list[str]:
        """The test cases of a model, in the order of its cells."""
        return self._cases[_has_one_case(model)]

    def parts(self, model: str) -> range:
        """Numbers of the parts that a model's cells are gathered in."""
        return range(math.ceil(len(self.of(model)) / self._size))

    def part(self, model: str, number: int) -> list[str]:
        """The test cases of one part."""
        start = number * self._size
        return self.of(model)[start : start + self._size]

    def group(self, model: str, case: str | None = None, part: int = 0) -> str:
        """The submission that a cell, or the job that gathers a part, belongs to."""
        if case is not None:
            part = self._positions[_has_one_case(model)][case] // self._size
        return f"cells_{'_'.join(Path(model).parts)}_{part}"

    def patterns(self, in_parts: bool) -> str:
        """Pattern of the models whose cells take several parts, or of the others."""
        kinds = {
            r"base|retrained/[^/]+": False,
            r"finetuned/[^/]+|refitted/[^/]+": True,
        }
        fitting = [
            pattern
            for pattern, of_one_case in kinds.items()
            if (len(self._cases[of_one_case]) > self._size) == in_parts
        ]
        return "|".join(fitting) or "(?!)"

    @cached_property
    def _positions(self) -> dict[bool, dict[str, int]]:
        """Of each case among those that a kind of model sees; each cell asks."""
        return {
            kind: {case: number for number, case in enumerate(cases)}
            for kind, cases in self._cases.items()
        }


def _has_one_case(model: str) -> bool:
    return model.split("/")[0] in OF_ONE_CASE
