"""What a run has found, in a dozen lines, from its result files: printed at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from casesim.similarity.kinds import NOTHING, TOO_FEW

NUMBER_TO_REVIEW = 3


def summarise(
    clustering: Mapping[str, Any],
    cases: pd.DataFrame,
    comparison: Mapping[str, Any] | None,
    look_at: Sequence[str],
) -> str:
    """The verdict, the worst cluster, cases to review first, and which file to open.

    Args:
        clustering: `similarity/clustering.json`.
        cases: `similarity/cases.tsv`, ranked.
        comparison: `pruning/summary.json`; None before any model was retrained.
        look_at: files to open, the first one first.

    Returns:
        Markdown of fewer than 15 lines.
    """
    lines = [f"# What {len(clustering['cases'])} train cases teach", ""]
    if comparison is not None:
        lines += [f"Verdict: {_verdict(comparison)}", "", *_reviewed(comparison)]
    lines += [_worst_cluster(clustering), "", "Review first:"]
    for number, case in enumerate(cases.head(NUMBER_TO_REVIEW).to_dict("records"), 1):
        lines.append(f"{number}. {case['case']}: {_reason(case)}")
    lines += ["", f"Open {' and '.join(look_at)}."]
    return "\n".join(lines) + "\n"


def _verdict(comparison: Mapping[str, Any]) -> str:
    headline = comparison["verdict"]
    if headline:
        rest = str(headline).removeprefix("worst_cluster")
        return f"removing the worst cluster{rest}"
    sentences = [arm.get("sentence") for arm in comparison["arms"].values()]
    return next(filter(None, sentences), "no arm was chosen by the matrix.")


def _reviewed(comparison: Mapping[str, Any]) -> list[str]:
    """What became of a reviewer's decisions and corrections, if there are any."""
    arms = (comparison["arms"].get(name) for name in ("reviewed", "relabelled"))
    lines = [str(arm["sentence"]) for arm in arms if arm]
    if "decisions" in comparison:
        lines.insert(0, comparison["decisions"]["statement"])
    return [*(f"* {line}" for line in lines), ""] if lines else []


def _worst_cluster(clustering: Mapping[str, Any]) -> str:
    members = clustering["worst_cases"] or []
    named = ", ".join(members[:6])
    if len(members) > 6:
        named += f" and {len(members) - 6} more"
    said = str(clustering["statement"])
    return f"Worst cluster: {named}. {said}" if named else f"No worst cluster: {said}"


def _reason(case: Mapping[Any, Any]) -> str:
    """Why a case is among the first, with the numbers that it rests on."""
    kind = case["kind"]
    if kind in (NOTHING, TOO_FEW):
        row = f"other cases {_change(case['donor_effect'])} Dice by its model"
        return f"{kind}, only the lowest of the rest ({row})"
    return f"{kind} ({case['evidence']})"


def _change(effect: float) -> str:
    """An effect, which is a difference from the median case, in words."""
    if pd.isna(effect):
        return "lose an unknown"
    return f"{'lose' if effect <= 0 else 'gain'} {abs(effect):.3f}"
