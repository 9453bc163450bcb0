"""The similarity classifier in all regions: fitted, judged among the calibration
cases, kept in a file, applied to a case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import pandas as pd
import sklearn

from casesim.adaptive import quality, regressor
from casesim.adaptive.plan import MIN_CALIBRATION
from casesim.adaptive.regressor import FOLDS, Fit
from casesim.adaptive.table import BASE, KEYS
from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.inference import overlap


@dataclass(frozen=True)
class Fitted:
    """`fits` by region; `out_of_fold` predictions of all calibration cells; `summary`:
    what `describe` reads."""

    fits: dict[str, Fit]
    out_of_fold: pd.DataFrame
    summary: dict[str, Any]


def fit_all(
    features: pd.DataFrame,
    scores: pd.DataFrame,
    base_scores: pd.DataFrame,
    level: float,
    seed: int,
    kinds: Mapping[str, str],
    threads: int = 1,
    trees: int | None = None,
    patients: Mapping[str, str] | None = None,
) -> Fitted:
    """Fit one regressor for each region.

    Args:
        features: `table.feature_table` of the calibration cases.
        scores: their Dice, as `table.score_case` gives it.
        base_scores: the base model's on the train cases, likewise.
        level: of the intervals.
        seed: of folds and forests.
        kinds: a name for the kind of each calibration case where one is known; each
            kind is predicted once without the others of its kind.
        threads: to fit with.
        trees: in a forest; `regressor.TREES` by default.
        patients: as for `regressor.fit`.
    """
    table = features.merge(scores[[*KEYS, "dice"]], on=list(KEYS), validate="1:1")
    trees = trees or regressor.TREES
    fits, out, summary = {}, [], {}
    for region in dict.fromkeys(table["region"]):
        rows = table[table["region"] == region]
        of_base = base_scores[base_scores["region"] == region]
        base_dice = dict(
            zip(of_base["case"], of_base["dice"].astype(float), strict=True)
        )
        fits[region], predicted = regressor.fit(
            rows, base_dice, level, seed, trees, threads, patients
        )
        out.append(predicted)
        summary[str(region)] = _judge(
            fits[region],
            rows,
            predicted,
            base_dice,
            seed,
            kinds,
            trees,
            threads,
            patients,
        )
    return Fitted(fits, pd.concat(out, ignore_index=True), summary)


def _judge(
    fit: Fit,
    rows: pd.DataFrame,
    predicted: pd.DataFrame,
    base_dice: Mapping[str, float],
    seed: int,
    kinds: Mapping[str, str],
    trees: int,
    threads: int,
    patients: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What the calibration cases themselves say of the predictions."""
    found: dict[str, Any] = {
        "calibrated": fit.calibrated,
        "n_cases": fit.n_cases,
        "n_patients": fit.n_patients,
        "n_undefined": fit.n_undefined,
        "least_cases": MIN_CALIBRATION,
        "least_patients": FOLDS,
        "base_mean": fit.row_means.get(BASE, float("nan")),
        "raw_confidence": _of_base(
            fit,
            predicted.assign(predicted_dice=predicted["confidence"], low=0.0, high=1.0),
        ),
    }
    if not fit.calibrated:
        return found
    found["by_case"] = _of_base(fit, predicted)
    rows = rows.sort_values(["case", "model"]).reset_index(drop=True)
    groups = {"by_row": rows["model"], "by_kind": rows["case"].map(dict(kinds))}
    for name, group in groups.items():
        if group.isna().any() or group.nunique() < 2:
            continue
        other = regressor.out_of_fold(
            rows, base_dice, group, seed, trees, threads, patients
        )
        error = other["predicted_dice"] - other["dice"]
        of_base = other["model"] == BASE
        base = other[of_base].set_index("case")
        found[name] = {
            "groups": int(group.nunique()),
            "mae_of_cells": float(error.abs().mean()),
            "bias_of_cells": float(error.mean()),
            "mae_of_finetuned": float(error[~of_base].abs().mean()),
            "bias_of_finetuned": float(error[~of_base].mean()),
            "base": quality.of_predictions(
                base["predicted_dice"], base["dice"], found["base_mean"]
            ),
        }
    error = predicted["predicted_dice"] - predicted["dice"]
    found["mae_of_cells"] = float(error.abs().mean())
    return found


def _of_base(fit: Fit, predicted: pd.DataFrame) -> dict[str, Any]:
    base = predicted[predicted["model"] == BASE].set_index("case")
    return quality.of_predictions(
        base["predicted_dice"],
        base["dice"],
        fit.row_means.get(BASE, float("nan")),
        base["low"],
        base["high"],
    )


def describe(summary: Mapping[str, Any], region: str) -> str:
    """The fit of one region in a sentence, for a log."""
    found = summary[region]
    if not found["calibrated"]:
        few = f"{found['n_cases']} calibration cases with a defined Dice"
        least = f"{found['least_cases']}"
        if found["n_cases"] >= found["least_cases"]:
            few = f"The {found['n_patients']} patients of {few}"
            least = f"{found['least_patients']}"
        return (
            f"{few} are too few to predict one (at least {least}): models are ranked "
            "by their raw confidence, and no Dice is promised. Raise "
            "cohort.calibration."
        )
    base = found["by_case"]
    what = "mean of the labels" if region == overlap.MEAN else region
    # Not "-0.000".
    bias = round(base["bias"], 3) + 0.0
    return (
        f"On {found['n_cases']} calibration cases, each left out of the learning, the "
        f"base model's Dice ({what}) is predicted with a mean error of "
        f"{base['mae']:.3f} ({base['mae_of_mean']:.3f} if their mean were said of "
        f"all), bias {bias:+.3f}, rank correlation "
        f"{quality.correlation(base['rank_correlation'])}."
    )


def predict_all(fits: Mapping[str, Fit], features: pd.DataFrame) -> pd.DataFrame:
    """`regressor.predict` in all regions that were fitted, one below the other."""
    return pd.concat(
        [
            regressor.predict(fit, features[features["region"] == region])
            for region, fit in fits.items()
        ],
        ignore_index=True,
    )


def save(fits: Mapping[str, Fit], path: str | os.PathLike[str]) -> None:
    """Write fits to a file that only the same version of scikit-learn reads."""
    with atomic_path(path) as temporary:
        joblib.dump({"sklearn": sklearn.__version__, "fits": dict(fits)}, temporary)


def load(path: str | os.PathLike[str]) -> dict[str, Fit]:
    """Read the fits that `save` wrote. A pickle: read no file of strangers.

    Raises `UserError` for a file that is missing, damaged, or of another version.
    """
    try:
        content = joblib.load(path)
        version, fits = content["sklearn"], content["fits"]
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run the workflow again.") from None
    except Exception as error:  # whatever a damaged pickle raises
        raise UserError(
            f"{path} cannot be read ({error!r}). Delete it and run the workflow again."
        ) from None
    if version != sklearn.__version__:
        raise UserError(
            f"{path} was written with scikit-learn {version}, this is "
            f"{sklearn.__version__}. Delete it and run the workflow again."
        )
    return dict(fits)


def kinds_of_case(
    cases: Sequence[str], phantom: Mapping[str, Any] | None, seed: int
) -> dict[str, str]:
    """The scanner of each synthetic case, which is known; nothing for other cohorts.

    Args:
        cases: calibration cases.
        phantom: the config's section `cohort.phantom`, None for another source.
        seed: the cohort's.
    """
    if phantom is None:
        return {}
    from casesim.cohort.phantom.acquisition import choose_scanner

    return {
        case: f"scanner {choose_scanner(case, phantom, '', seed)[0]}" for case in cases
    }
