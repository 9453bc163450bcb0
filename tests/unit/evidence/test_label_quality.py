"""The out-of-fold baseline: folds, and cleanlab's score of a whole volume."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanlab.segmentation.rank import get_label_quality_scores
from hypothesis import given
from hypothesis import strategies as st
from unit.conftest import LABELS, POOL, TinyCohort

from casesim.evidence import jobs
from casesim.evidence.label_quality import folds, label_quality
from casesim.nnunet import preprocessing
from casesim.nnunet.stages import CASCADE


@given(
    st.sets(st.text("abc", min_size=1), min_size=2, max_size=12),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_every_case_is_left_out_once_and_folds_are_even(
    cases: set[str], number: int, seed: int
) -> None:
    number = min(number, len(cases))
    found = folds(cases, number, seed)
    assert set(found) == cases
    sizes = np.bincount(list(found.values()), minlength=number)
    assert len(sizes) == number
    assert sizes.max() - sizes.min() <= 1
    assert found == folds(sorted(cases, reverse=True), number, seed)


def test_no_patient_is_in_two_folds() -> None:
    cases = [f"p{patient}-{scan}" for patient in range(7) for scan in range(patient)]
    patients = {case: case[:2] for case in cases}
    found = folds(cases, 3, 0, patients)
    assert set(found) == set(cases)
    assert len({(patients[case], fold) for case, fold in found.items()}) == 6
    sizes = np.bincount(list(found.values()))
    assert len(sizes) == 3
    assert sizes.max() - sizes.min() <= 6
    # A patient of one scan is dealt out as the case itself was.
    single = [f"case_{i}" for i in range(9)]
    assert folds(single, 3, 1, {case: case for case in single}) == folds(single, 3, 1)


def test_folds_are_drawn_and_none_are_none() -> None:
    cases = [f"case_{i}" for i in range(12)]
    assert folds(cases, 3, 0) != folds(cases, 3, 1)
    assert folds(cases, 0, 0) == {}


def test_label_quality_by_hand() -> None:
    # Two classes, two voxels: logits 0 and log 3 are probabilities 1/4 and 3/4.
    logits = np.array([[[[0.0, math.log(3)]]], [[[math.log(3), 0.0]]]])
    labels = np.array([[[1, 1]]])
    # Probabilities of the given labels: 3/4 and 1/4; weights exp(10 (1 - p)).
    light, heavy = math.exp(2.5), math.exp(7.5)
    expected = (0.75 * light + 0.25 * heavy) / (light + heavy)
    assert label_quality(labels, logits) == pytest.approx(expected)


def test_a_volume_is_one_image_to_cleanlab() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (4, 3, 5, 6))
    labels = draw.integers(0, 4, (3, 5, 6))
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=0)
    # The same voxels, beside each other instead of below each other.
    image = np.concatenate(list(labels), axis=1)[None]
    beside = np.concatenate(list(np.moveaxis(probabilities, 1, 0)), axis=2)[None]
    scores, _ = get_label_quality_scores(image, beside, verbose=False)
    assert label_quality(labels, logits) == pytest.approx(scores[0])


def test_a_wrong_label_is_more_suspect_and_outside_counts_as_background() -> None:
    labels = np.zeros((2, 8, 8), int)
    labels[:, 2:5, 2:5] = 1
    logits = np.where(labels == np.arange(2)[:, None, None, None], 4.0, 0.0)
    right = label_quality(labels, logits)
    assert label_quality(np.roll(labels, 3, axis=1), logits) < right
    outside = labels.copy()
    outside[:, 0] = -1
    assert label_quality(outside, logits) == right


def test_what_does_not_fit_is_refused() -> None:
    logits = np.zeros((2, 1, 2, 2))
    with pytest.raises(ValueError, match="do not fit"):
        label_quality(np.zeros((1, 2, 3), int), logits)
    with pytest.raises(ValueError, match="2 classes"):
        label_quality(np.full((1, 2, 2), 2), logits)


def test_a_cascade_is_judged_by_its_second_stage(
    cascade_cohort: TinyCohort, cascade_pair: Path, tmp_path: Path
) -> None:
    stem = cascade_cohort.stem(POOL[0], CASCADE)
    jobs.label_quality(
        checkpoint=str(cascade_pair),
        stem=str(stem),
        score=str(tmp_path / "score.json"),
        case=POOL[0],
        fold=1,
        foreground={name: number for name, number in LABELS.items() if number},
        options={"mirroring": False},
        threads=4,
        gpu=0,
    )
    # On a CPU one, whatever the job has been given.
    assert torch.get_num_threads() == 1
    score = json.loads((tmp_path / "score.json").read_text())
    _, labels, _ = preprocessing.load_preprocessed(stem, with_seg=True)
    assert labels is not None
    assert score["labels"]["edema"]["n_ref"] == (labels == 1).sum()
    assert 0 < score["label_quality"] < 1
