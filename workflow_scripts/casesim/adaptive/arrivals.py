"""What is told of each new case: its outlook, and what its segmentation leans on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from casesim.adaptive import labelling, outlook, selection

COLUMNS = (
    *("case", "predicted_dice", "low", "high", "words"),
    *("leans_on", "models", "novelty", "confidence", "segmentation"),
    "of_own_model",
)


def table(
    selections: Mapping[str, pd.DataFrame],
    features: pd.DataFrame,
    calibration: pd.DataFrame,
    learnt: outlook.Outlook,
    top: int,
    segmentations: Mapping[str, str],
    patients: Mapping[str, str] | None = None,
    own: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """One row for each new case: `new.tsv`.

    Args:
        selections: by new case, one region.
        features: of the new cases, all regions.
        calibration: of the calibration cases, likewise.
        learnt: how the ensemble's Dice is predicted.
        top: train cases to name.
        segmentations: file by case.
        patients: of calibration cases, as in `matrix.own_cells`.
        own: of cases with a model of their own, its segmentation.

    Returns:
        `COLUMNS`, by case id: predicted Dice of the segmentation with its interval,
        empty where nothing is calibrated, and no interval for a case unlike the
        calibration cases, where it holds nothing (docs/adaptive.md); `words`;
        `leans_on`, the train cases whose models weigh most,
        and `models`, all that have a weight, separated by commas; `novelty`
        (`labelling.novelty`); `confidence`, the raw one of the members by weight,
        which ranks but promises nothing; `segmentation`; `of_own_model`, where there
        is one, that of the model that was fine-tuned for the case, of which no Dice is
        predicted.
    """
    known = labelling.profiles(calibration)
    asked = labelling.profiles(features)
    rows = []
    for case, ranked in sorted(selections.items()):
        predicted, low, high = outlook.predict(learnt, *outlook.weighted(ranked))
        novelty = labelling.novelty(known, asked.T[case], patients)
        words = outlook.words(learnt, predicted, novelty)
        promised = np.isfinite(predicted) and words != outlook.UNLIKE
        heard = selection.members(ranked)
        confidence = ranked.set_index("model")["confidence"].astype(float)
        rows.append(
            {
                "case": case,
                "predicted_dice": predicted,
                "low": low if promised else np.nan,
                "high": high if promised else np.nan,
                "words": words,
                "leans_on": ",".join(selection.leaned_on(ranked, top)),
                "models": ",".join(heard),
                "novelty": novelty,
                "confidence": sum(w * confidence[m] for m, w in heard.items()),
                "segmentation": segmentations[case],
                "of_own_model": (own or {}).get(case, ""),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def to_look_at(told: pd.DataFrame) -> pd.DataFrame:
    """The same rows, those first that need a look: cases unlike the calibration cases,
    whose prediction means nothing, then by predicted Dice, the lowest first. Where no
    Dice is predicted, in the order of labelling.
    """
    order = labelling.labelling_order(told).set_index("case")["order"]
    return (
        told.assign(
            alike=told["words"] != outlook.UNLIKE, place=told["case"].map(order)
        )
        .sort_values(["alike", "predicted_dice", "place"], na_position="last")
        .drop(columns=["alike", "place"])
    )


def names(row: pd.Series | Mapping[str, object], column: str) -> Sequence[str]:
    """The names in `leans_on` or `models`; an empty field of a table that was read is
    no text."""
    text = row[column]
    return [name for name in text.split(",") if name] if isinstance(text, str) else []
