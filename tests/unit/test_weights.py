"""Ways to weigh the models of an ensemble: by hand, and their table."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import weights
from benchmarks.weights import ALL, BY_LABEL, BY_MEAN, KEPT, KNOWN, Case
from casesim.adaptive import selection

from .adaptive.test_selection import LABELS, predicted


def case() -> Case:
    """Three models, two labels; the last model knows nothing of the second label."""
    return Case(
        softmax=np.full((3, 3, 1, 1, 2), 1 / 3, np.float32),
        reference=np.zeros((1, 1, 2), np.uint8),
        predicted={
            "mean": np.array([0.7, 0.72, 0.4]),
            "edema": np.array([0.7, 0.72, 0.8]),
            "core": np.array([0.7, 0.7, np.nan]),
        },
        dice={"edema": np.array([0.1, 0.9, 0.1]), "core": np.array([np.nan] * 3)},
        record=np.array([0.5, 0.5, 0.5]),
        kept=np.array([True, True, False]),
    )


def test_weights_by_hand() -> None:
    found = weights.ways(case(), ["edema", "core"])
    assert all(given.shape == (3, 3) for given in found.values())
    assert all(given.sum(axis=1) == pytest.approx(1) for given in found.values())
    np.testing.assert_allclose(found[ALL], 1 / 3)
    np.testing.assert_allclose(found[KEPT], [[0.5, 0.5, 0]] * 3)
    share = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(
        found[f"{BY_MEAN}, 0.02"], [[1 - share, share, 0]] * 3, atol=1e-6
    )
    background, edema, core = found[f"{BY_LABEL}, 0.01"]
    assert edema[2] > 0.99
    np.testing.assert_allclose(core, [0.5, 0.5, 0])
    np.testing.assert_allclose(background, (edema + core) / 2)
    assert found[f"{KNOWN}, 0.03"][1, 1] > 0.99
    np.testing.assert_allclose(found[f"{KNOWN}, 0.03"][2], 1 / 3)


def test_the_workflow_weighs_likewise_but_for_what_is_not_heard() -> None:
    given = predicted(b=0.7, x=0.72, y=0.74)
    chosen = selection.by_class(selection.select(given, "mean", LABELS, 0.03))
    dice = np.array([0.7, 0.72, 0.74])
    expected = weights.softmax(dice, 0.03)
    models = ["base", "finetuned/x", "finetuned/y"]
    for model, weight in zip(models, expected, strict=True):
        assert chosen[model] == pytest.approx([weight] * 3)


def test_dice_of_labels_that_are_nowhere_is_left_out() -> None:
    reference = np.array([[[0, 1, 1]]])
    assert weights.mean_dice(np.array([[[0, 1, 0]]]), reference, 2) == pytest.approx(
        2 / 3
    )
    assert np.isnan(weights.mean_dice(reference * 0, reference * 0, 2))


def test_the_table() -> None:
    cases = [f"c{number}" for number in range(10)]
    table = pd.DataFrame(
        [
            (name, way, dice)
            for name in cases
            for way, dice in ((KEPT, 0.5), ("x", 0.6))
        ],
        columns=["case", "way", "dice"],
    )
    text = weights.report({"one": table, "two": table.assign(dice=table["dice"] + 0.1)})
    assert text.startswith("Runs: 2; 10 calibration cases")
    assert "| x | 0.6500 | +0.1000 [+0.1000, +0.1000] | +0.1000, +0.1000 |" in text
