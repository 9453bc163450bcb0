"""What the similarity classifier has found, in a few lines, for the end of a run."""

from collections.abc import Sequence

import pandas as pd

from casesim.adaptive import arrivals, outlook
from casesim.report.new_cases import dice_in_numbers

# Of new cases, those that need a look most.
MOST_CASES = 3


def summarise(
    told: pd.DataFrame | None,
    first: str,
    fit: str,
    judged: Sequence[str],
    look_at: Sequence[str],
) -> str:
    """The new cases to look at, the one to label first, what the judges say, and which
    file to open.

    Args:
        told: `adaptive/new.tsv`; None without new cases.
        first: the new case to label first; empty without new cases.
        fit: how well Dice is predicted, or that it is not (`fitting.describe`).
        judged: what held-out cases say, `judging.headlines`; empty without any.
        look_at: files to open, the first one first.

    Returns:
        Markdown of 15 lines at most.
    """
    lines = ["# The similarity classifier", ""]
    if told is None:
        lines += [fit, ""]
    else:
        lines += [*_new_cases(told, fit), f"Label first: {first}.", ""]
    if judged:
        lines += [*judged, ""]
    lines += [f"Open {' and '.join(look_at)}."]
    return "\n".join(lines) + "\n"


def _new_cases(told: pd.DataFrame, fit: str) -> list[str]:
    number = f"{len(told)} new case{'s' if len(told) > 1 else ''}"
    if told["predicted_dice"].isna().all():
        return [f"{number} segmented. {fit}", ""]
    ordered = arrivals.to_look_at(told)
    lines = [f"{number} segmented; predicted Dice (interval), those to look at first:"]
    for place, row in enumerate(ordered.head(MOST_CASES).to_dict("records"), 1):
        lines.append(f"{place}. {row['case']}: {dice_in_numbers(row)}, {row['words']}")
    if (rest := len(told) - MOST_CASES) > 0:
        look = int(ordered["words"].iloc[MOST_CASES:].isin(outlook.NEEDS_A_LOOK).sum())
        lines.append(f"and {rest} more, {look or 'none'} of them to look at.")
    return [*lines, ""]
