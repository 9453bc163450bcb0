"""Signatures: in which way a case differs from what is usual, in numbers.

A Dice says how much is wrong; the counts behind it say which way. Each case is looked
at from up to three sides:

* `row`: what the model fine-tuned on it does to all *other* cases, relative to what is
  usual in each column;
* `column`: what all *other* models make of it, against its own label map;
* `base`: what the base model makes of it, which was trained on it among others;
* `edits`: which single change would make its label map fit what the base model draws
  (`edits`).

In the row, a label map that is too large makes a model that draws too large; in the
other two, it makes everybody else look too small. All comparisons are robust (median
and MAD), and a model's cells on its own train case, and on other scans of that patient,
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.inference.errors import Errors
from casesim.similarity.edits import ADDED, EDITS, MOVED, NARROWER, REMOVED, WIDER
from casesim.similarity.effects import robust_z
from casesim.similarity.matrix import own_cells

Array = npt.NDArray[np.float64]

FOREGROUND = "foreground"
# Volumes are compared with a hundredth of the reference added, so that an empty
# prediction has a finite logarithm: ln(0.01 / 1.01) = -4.6.
_SMOOTHING = 0.01
# Three quarters of the absolute values of a standard normal distribution are below it.
_UPPER_QUARTILE = 1.1503
# A spread that is smaller than this says nothing: no z is taken in units below it.
SMALLEST_SPREAD = {
    "volume": 0.04,
    "precision": 0.02,
    "recall": 0.02,
    "dice": 0.02,
    "labels": 0.02,
    "far": 0.03,
    "exchange": 0.03,
    # Gains of Dice, by what right maps gain: where they differ from what models draw
    # anyway there are pieces, but hardly a move helps.
    MOVED: 0.01,
    **dict.fromkeys((NARROWER, WIDER), 0.0125),
    **dict.fromkeys((REMOVED, ADDED), 0.03),
}


def positions(
    regions: Mapping[str, Sequence[int]], labels: Mapping[str, int]
) -> dict[str, list[int]]:
    """Where the labels of each region are in a confusion matrix.

    Args:
        regions: name to label numbers.
        labels: name to number of the foreground labels, in the matrix's order.
    """
    place = {number: i for i, number in enumerate(labels.values(), start=1)}
    return {
        name: [place[number] for number in members] for name, members in regions.items()
    }


def measures(
    errors: Errors, regions: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str], Array]:
    """What each cell is measured by.

    * `volume`: signed logarithm (natural) of predicted over reference volume;
    * `precision`, `recall`, `dice`: NaN where nothing was predicted, or nothing is
      there;
    * `labels`: of the foreground's voxels that both call so, the share with the right
      label; NaN where there are none;
    * `far`: of the foreground's errors, the share that lies more than 4 mm from the
      reference's surface;
    * `exchange`, of a pair of labels `A|B`: how much their mean Dice would rise if the
      two were exchanged in the prediction, where it is below 0 for a pair told apart.

    Args:
        errors: (model, case) counts.
        regions: name to positions of labels in `errors.labels`, from 1 on.

    Returns:
        (measure, region or pair) to values (model, case).
    """
    confusion = errors.confusion
    # A region of that name may hold some labels only.
    everything = {FOREGROUND: [], **regions}
    everything[FOREGROUND] = range(1, len(errors.labels) + 1)
    found: dict[tuple[str, str], Array] = {}
    for name, labels in everything.items():
        members = list(labels)
        tp = confusion[..., members, :][..., members].sum(axis=(-2, -1))
        n_ref = confusion[..., members, :].sum(axis=(-2, -1))
        n_pred = confusion[..., members].sum(axis=(-2, -1))
        empty = (n_ref == 0) & (n_pred == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            small = _SMOOTHING * np.maximum(n_ref, n_pred)
            volume = np.log((n_pred + small) / (n_ref + small))
            found["volume", name] = np.where(empty, np.nan, volume)
            found["precision", name] = tp / n_pred
            found["recall", name] = tp / n_ref
            found["dice", name] = 2 * tp / (n_pred + n_ref)
    both = confusion[..., 1:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.trace(both, axis1=-2, axis2=-1)
        found["labels", FOREGROUND] = right / both.sum(axis=(-2, -1))
        wrong = errors.fp + errors.fn
        found["far", FOREGROUND] = wrong[..., 3:].sum(axis=-1) / wrong.sum(axis=-1)
    for a, b in combinations(range(1, len(errors.labels) + 1), 2):
        pair = f"{errors.labels[a - 1]}|{errors.labels[b - 1]}"
        found["exchange", pair] = _gain(confusion, a, b)
    return found


def _gain(confusion: Array, a: int, b: int) -> Array:
    """Rise of the mean Dice of two labels if the prediction's were exchanged."""
    n_ref = confusion.sum(axis=-1)
    n_pred = confusion.sum(axis=-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        as_is = [
            2 * confusion[..., k, k] / (n_ref[..., k] + n_pred[..., k]) for k in (a, b)
        ]
        exchanged = [
            2 * confusion[..., k, m] / (n_ref[..., k] + n_pred[..., m])
            for k, m in ((a, b), (b, a))
        ]
    return (sum(exchanged) - sum(as_is)) / 2


def from_row(values: Array, own: npt.NDArray[np.bool_]) -> Array:
    """How a row departs from what is usual in its columns: median over the columns.

    Args:
        values: (train cases, pool cases).
        own: (train cases, pool cases), from `matrix.own_cells`.
    """
    others = np.where(own, np.nan, values)
    return _median(others - _median(others, 0)[None, :], 1)


def from_column(values: Array, own: npt.NDArray[np.bool_]) -> Array:
    """What the other models make of a case: median over the rows, (pool cases,)."""
    return _median(np.where(own, np.nan, values), 0)


def _median(values: Array, axis: int) -> Array:
    """Median of the defined values; NaN where there is none, without a warning."""
    empty = np.isnan(values).all(axis=axis)
    filled = np.where(np.expand_dims(empty, axis), 0.0, values)
    return np.where(empty, np.nan, np.nanmedian(filled, axis=axis))


def standardised(values: Array, measure: str) -> tuple[Array, Array]:
    """Departure from the usual value, and its robust z, of each case.

    What an edit gains is compared with 0 instead: what a right map gains.

    Args:
        values: (cases,); NaN is left out and stays.
        measure: names the smallest spread that is taken for one.
    """
    if np.isnan(values).all():
        return values.copy(), values.copy()
    if measure in EDITS:
        # What is gained starts at 0. Its unit would be one standard deviation if all
        # gains were sizes of normal draws; of a cohort half of which gains nothing it
        # is 0.6745 / 1.1503 = 0.59 of one. Thresholds were chosen with it.
        spread = float(np.nanquantile(values, 0.75)) / _UPPER_QUARTILE
        return values.copy(), values / max(spread, SMALLEST_SPREAD[measure])
    effect = values - np.nanmedian(values)
    z = robust_z(values)
    # robust_z divides by the spread: where that is tiny, by the smallest one instead.
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.nanmax(np.abs(np.where(z == 0, np.nan, effect / z)), initial=0)
    floor = SMALLEST_SPREAD[measure]
    return effect, z if spread >= floor else effect / floor


@dataclass(frozen=True)
class Signatures:
    """The signatures of some cases.

    Attributes:
        table: tidy, `case, side, measure, region, value, effect, z`.
        changes: `case, edit, gain, by`, as in `edits`; None where they were not looked
            for.
    """

    table: pd.DataFrame
    changes: pd.DataFrame | None = None

    def wide(self, side: str, what: str = "effect") -> pd.DataFrame:
        """One column for each (measure, region) of a side, indexed by case."""
        rows = self.table[self.table["side"] == side]
        return rows.pivot(index="case", columns=["measure", "region"], values=what)


def signatures(
    errors: Errors | None,
    base: Errors,
    regions: Mapping[str, Sequence[int]],
    patients: Mapping[str, str] | None = None,
    changes: pd.DataFrame | None = None,
) -> Signatures:
    """Signatures of all cases, from all sides that there are.

    Args:
        errors: models `finetuned/<train case>` by pool cases; None where nothing was
            fine-tuned.
        base: the base model by pool cases (1 model).
        regions: as in `measures`.
        patients: as in `matrix.own_cells`.
        changes: from `edits.edits_of_cases`, of the base model's label maps; None where
            they were not looked for.
    """
    parts = []
    if errors is not None:
        train = [model.removeprefix("finetuned/") for model in errors.models]
        own = own_cells(train, errors.cases, patients)
        for (measure, region), values in measures(errors, regions).items():
            row, column = from_row(values, own), from_column(values, own)
            parts.append(_part(train, "row", measure, region, row))
            parts.append(_part(errors.cases, "column", measure, region, column))
    for (measure, region), values in measures(base, regions).items():
        parts.append(_part(base.cases, "base", measure, region, values[0]))
    if changes is not None:
        gains = changes.pivot(index="case", columns="edit", values="gain")
        for edit, gain in gains.reindex(base.cases).items():
            whole = gain.to_numpy(float)
            parts.append(_part(base.cases, "edits", str(edit), FOREGROUND, whole))
    return Signatures(pd.concat(parts, ignore_index=True), changes)


def _part(
    cases: Sequence[str], side: str, measure: str, region: str, values: Array
) -> pd.DataFrame:
    effect, z = standardised(values, measure)
    return pd.DataFrame(
        {
            "case": list(cases),
            "side": side,
            "measure": measure,
            "region": region,
            "value": values,
            "effect": effect,
            "z": z,
        }
    )
