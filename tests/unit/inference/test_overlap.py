"""Voxel counts, Dice and tables against hand values and other programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from nnunetv2.evaluation.evaluate_predictions import (
    compute_tp_fp_fn_tn,
    region_or_label_to_mask,
)

from casesim.errors import UserError
from casesim.inference import overlap
from casesim.inference.surface import Reference

LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def test_counts_by_hand() -> None:
    prediction = np.array([[0, 1, 1, 2], [3, 3, 0, 0]], np.uint8)
    reference = np.array([[0, 1, 2, 2], [3, 0, 1, 0]], np.uint8)
    counts = overlap.count(prediction, reference, {"1": [1], "3": [3], "TC": [2, 3]})
    assert counts == {
        "1": {"tp": 1, "fp": 1, "fn": 1, "n_pred": 2, "n_ref": 2},
        "3": {"tp": 1, "fp": 1, "fn": 0, "n_pred": 2, "n_ref": 1},
        # label 2 predicted as 2, label 3 as 3; inside a region labels may be confused
        "TC": {"tp": 2, "fp": 1, "fn": 1, "n_pred": 3, "n_ref": 3},
    }


def test_labels_of_a_region_may_be_confused() -> None:
    counts = overlap.count(
        np.array([2, 3]), np.array([3, 2]), {"TC": [2, 3], "ET": [3]}
    )
    assert counts["TC"] == {"tp": 2, "fp": 0, "fn": 0, "n_pred": 2, "n_ref": 2}
    assert counts["ET"]["tp"] == 0


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "expected"),
    [(1, 0, 0, 1.0), (1, 1, 1, 0.5), (3, 1, 0, 6 / 7), (0, 4, 0, 0.0), (0, 0, 4, 0.0)],
)
def test_dice_by_hand(tp: int, fp: int, fn: int, expected: float) -> None:
    assert overlap.dice(tp, fp, fn) == expected


def test_dice_of_two_empty_masks_is_undefined() -> None:
    assert math.isnan(overlap.dice(0, 0, 0))


label_maps = st_numpy.arrays(
    np.uint8,
    st.shared(st_numpy.array_shapes(min_dims=3, max_dims=3, max_side=6), key="shape"),
    elements=st.integers(0, 4),
)


@settings(deadline=None)
@given(prediction=label_maps, reference=label_maps)
def test_same_counts_as_nnunet(prediction: np.ndarray, reference: np.ndarray) -> None:
    regions: dict[str, tuple[int, ...]] = {"1": (1,), "9": (9,), **REGIONS}
    counts = overlap.count(prediction, reference, regions)
    for name, labels in regions.items():
        tp, fp, fn, _ = compute_tp_fp_fn_tn(
            region_or_label_to_mask(reference, labels),
            region_or_label_to_mask(prediction, labels),
        )
        assert counts[name] == {
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "n_pred": tp + fp,
            "n_ref": tp + fn,
        }
        assert type(counts[name]["tp"]) is int


def test_same_dice_as_simpleitk() -> None:
    generator = np.random.default_rng(0)
    prediction, reference = generator.integers(0, 4, (2, 6, 7, 8)).astype(np.uint8)
    measures = SimpleITK.LabelOverlapMeasuresImageFilter()
    measures.Execute(
        SimpleITK.GetImageFromArray(reference), SimpleITK.GetImageFromArray(prediction)
    )
    counts = overlap.count(prediction, reference, {str(i): (i,) for i in (1, 2, 3)})
    for i in (1, 2, 3):
        c = counts[str(i)]
        assert overlap.dice(c["tp"], c["fp"], c["fn"]) == pytest.approx(
            measures.GetDiceCoefficient(i), abs=1e-12
        )


def test_types_and_memory_order_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    prediction, reference = generator.integers(0, 4, (2, 5, 6, 7))
    expected = overlap.count(prediction, reference, REGIONS)
    other = overlap.count(
        np.asfortranarray(prediction.astype(np.uint8)),
        reference.astype(np.int16)[::-1][::-1],
        REGIONS,
    )
    assert other == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "regions", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), {"a": (1,)}, "shape"),
        (np.zeros(3), np.zeros(3, int), {"a": (1,)}, "type"),
        (np.zeros(3, int), np.array([0, -1, 1]), {"a": (1,)}, "negative"),
        (np.zeros(3, int), np.zeros(3, int), {"a": (0, 1)}, "above 0"),
    ],
)
def test_bad_input_is_refused(
    prediction: np.ndarray, reference: np.ndarray, regions: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        overlap.count(prediction, reference, regions)


def record(
    model: str = "finetuned/A",
    case: str = "B",
    prediction: tuple[int, ...] = (1, 1, 2, 0),
    reference: tuple[int, ...] = (1, 2, 2, 0),
) -> dict[str, Any]:
    return overlap.score_record(
        model,
        case,
        np.array(prediction),
        Reference.of(np.array(reference), (1.0,)),
        LABELS,
        REGIONS,
    )


@settings(deadline=None)
@given(prediction=label_maps, reference=label_maps)
def test_regions_and_ignored_voxels_are_counted_as_nnunet_does(
    prediction: np.ndarray, reference: np.ndarray
) -> None:
    # Number 4 is ignored; a network does not predict it.
    prediction = np.minimum(prediction, 3)
    found = overlap.score_record(
        "A",
        "a",
        prediction,
        Reference.of(reference, (1.0, 1.0, 1.0), ignore=4),
        REGIONS,
        {"necrosis": (2,)},
    )
    counts = {**found["labels"], **found["regions"]}
    assert list(counts) == ["WT", "TC", "ET", "necrosis"]
    for name, numbers in {**REGIONS, "necrosis": (2,)}.items():
        tp, fp, fn, _ = compute_tp_fp_fn_tn(
            region_or_label_to_mask(reference, numbers),
            region_or_label_to_mask(prediction, numbers),
            ignore_mask=reference == 4,
        )
        assert (counts[name]["tp"], counts[name]["fp"], counts[name]["fn"]) == (
            *(tp, fp, fn),
        )
    assert found["classes"] == ["label_1", "label_2", "ET"]
    confusion = np.array(found["confusion"])
    counted = reference != 4
    assert confusion.sum() == counted.sum()
    for i, j in np.ndindex(4, 4):
        where = counted & (reference == i) & (prediction == j)
        assert confusion[i, j] == where.sum()
    bands = found["bands"]
    assert sum(bands["fp"]) == (counted & (reference == 0) & (prediction > 0)).sum()
    assert sum(bands["fn"]) == (counted & (reference > 0) & (prediction == 0)).sum()


def test_the_mean_of_regions_is_over_what_the_network_was_trained_on() -> None:
    found = overlap.score_record(
        "A",
        "a",
        np.array([1, 1, 2, 0]),
        Reference.of(np.array([1, 2, 2, 0]), (1.0,)),
        {"WT": (1, 2), "TC": (2,)},
        {"edema": (1,)},
    )
    table: Any = overlap.score_table([found]).set_index("region")
    assert list(table.index) == ["WT", "TC", "edema", "mean"]
    assert table.loc["mean", "dice"] == pytest.approx((1 + 2 / 3) / 2)


def test_fewer_regions_than_labels_are_read_again(tmp_path: Path) -> None:
    """Two regions of three labels: the confusion is of labels."""
    found = overlap.score_record(
        "A",
        "a",
        np.array([1, 1, 2, 3]),
        Reference.of(np.array([1, 2, 2, 3]), (1.0,)),
        {"WT": (1, 2, 3), "TC": (2, 3)},
        {},
    )
    path = tmp_path / "score.json"
    path.write_text(json.dumps(found))
    assert overlap.read_record(path) == found


def test_record_leaves_the_background_out() -> None:
    assert list(record()["labels"]) == ["edema", "core", "enhancing"]
    assert record()["labels"]["core"]["fn"] == 1


def test_table_by_hand() -> None:
    table: Any = overlap.score_table([record()]).set_index("region")
    assert list(table.index) == ["edema", "core", "enhancing", "WT", "TC", "ET", "mean"]
    assert table.loc["edema", "dice"] == 2 / 3
    assert table.loc["core", "dice"] == 2 / 3
    assert math.isnan(table.loc["enhancing", "dice"])
    assert table.loc["WT", "dice"] == 1
    # over the labels only, the undefined one left out and counted
    assert table.loc["mean", "dice"] == 2 / 3
    assert list(table["n_undefined"]) == [0, 0, 1, 0, 0, 1, 1]
    assert table.loc["core", list(overlap.COUNTS)].tolist() == [1, 0, 1, 1, 2]
    assert table.loc["mean", list(overlap.COUNTS)].isna().all()


def test_mean_of_undefined_labels_is_undefined() -> None:
    empty = record(prediction=(0, 0), reference=(0, 0))
    mean: Any = overlap.score_table([empty]).set_index("region").loc["mean"]
    assert math.isnan(mean["dice"])
    assert mean["n_undefined"] == 3


def test_one_empty_mask_counts_as_zero() -> None:
    table = overlap.score_table([record(prediction=(0, 0), reference=(1, 1))])
    assert table.set_index("region").loc["edema", "dice"] == 0
    assert table.set_index("region").loc["mean", "dice"] == 0


def test_table_survives_writing(tmp_path: Path) -> None:
    table = overlap.score_table(
        [record(case="NA"), record(case="001", prediction=(0,), reference=(0,))]
    )
    path = tmp_path / "scores.tsv"
    overlap.write_table(table, path)
    pd.testing.assert_frame_equal(overlap.read_table(path), table)
    # every digit of 2/3, and empty where undefined
    fields = [line.split("\t") for line in path.read_text().splitlines()]
    assert fields[1][-2:] == [repr(2 / 3), "0"]
    assert fields[3][-2:] == ["", "1"]
    assert fields[7][3:8] == [""] * 5


@pytest.mark.parametrize("content", ["", "case\tdice\nA\t1\n", "a\0b"])
def test_damaged_table_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"scores\.tsv"):
        overlap.read_table(path)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        overlap.read_table(path)


def test_record_survives_writing(tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    content = record() | {"seconds": {"network": 0.1}, "device": "cpu"}
    path.write_text(json.dumps(content))
    assert overlap.read_record(path) == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"tp"', '"t"'),
        lambda text: text.replace('"tp": 1', '"tp": "1"'),
        lambda text: text.replace('"model"', '"m"'),
    ],
)
def test_damaged_record_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "score.json"
    path.write_text(damage(json.dumps(record())))
    with pytest.raises(UserError, match=r"score\.json"):
        overlap.read_record(path)
