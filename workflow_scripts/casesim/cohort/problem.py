"""One thing that is wrong with a cohort, in the user's words."""

from dataclasses import dataclass

# Stands in the case column for what concerns no single case; no case can be called so.
WHOLE_COHORT = "(cohort)"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a cohort, in the user's words."""

    case: str
    severity: str
    problem: str
    how_to_fix: str
