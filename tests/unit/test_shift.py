"""Predictions for cases of another kind: what is counted."""

import pandas as pd

from benchmarks import shift


def case(kind: str, dice: float, low: float, high: float, **more: float) -> dict:
    return {
        **{"kind": kind, "case": "h", "dice": dice, "confidence": 0.9},
        **{"predicted": 0.8, "low": low, "high": high},
        **{"ensemble_dice": dice + 0.1, "ensemble_predicted": 0.85},
        **{"ensemble_low": low, "ensemble_high": high, "unlike": False},
        **more,
    }


def test_the_report_counts_what_the_intervals_hold() -> None:
    table = pd.DataFrame(
        [
            case(shift.SAME, 0.7, 0.6, 0.9),
            case(shift.SAME, 0.9, 0.6, 0.9),
            case("odd_scanner", 0.2, 0.6, 0.9, unlike=True),
            case("odd_scanner", 0.55, 0.6, 0.9, unlike=True),
            # A case without a defined Dice judges nothing.
            case("odd_scanner", float("nan"), 0.6, 0.9),
        ]
    )
    same, odd = shift.report(table).splitlines()[2:]
    assert same == (
        "| as they were | 0.800 | 0.900 | 0.800 | 2 of 2 | 0.900 | 0.850 | 1 of 2 "
        "| 0 of 2 |"
    )
    assert odd == (
        "| odd scanner | 0.375 | 0.900 | 0.800 | 0 of 2 | 0.475 | 0.850 | 1 of 2 "
        "| 2 of 2 |"
    )
