"""Numbers of a softmax and of a label map, by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casesim.adaptive import confidence


def logits_of(*probabilities: tuple[float, ...]) -> torch.Tensor:
    """Voxels in a line, each with its probabilities: (class, 1, 1, voxel)."""
    return torch.tensor(probabilities).log().T[:, None, None]


def test_expected_dice_by_hand() -> None:
    # Voxels 1 and 2 are segmented as label 1, voxel 3 as label 2, voxel 4 as neither.
    logits = logits_of((0.2, 0.8, 0), (0.4, 0.5, 0.1), (0, 0.3, 0.7), (0.6, 0.2, 0.2))
    found = confidence.from_logits(logits, {"a": [1], "b": [2], "ab": [1, 2]})
    assert found["a"]["expected_dice"] == pytest.approx(2 * 1.3 / (1.8 + 2))
    assert found["b"]["expected_dice"] == pytest.approx(2 * 0.7 / (1.0 + 1))
    assert found["ab"]["expected_dice"] == pytest.approx(2 * 2.4 / (2.8 + 3))


def test_entropy_by_hand() -> None:
    logits = logits_of((0.2, 0.4, 0.4), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0))
    logits = torch.nan_to_num(logits, neginf=-1e9)
    found = confidence.from_logits(logits, {"a": [1], "b": [2]})
    # The second voxel is a tie, which goes to the background; the first one's to a.
    first = -(0.2 * math.log(0.2) + 2 * 0.4 * math.log(0.4)) / math.log(3)
    assert found["a"]["entropy"] == pytest.approx(first, abs=1e-6)
    assert math.isnan(found["b"]["entropy"])


def test_a_certain_model_expects_one_and_an_empty_region_nothing() -> None:
    logits = torch.full((2, 1, 2, 2), -50.0)
    logits[1, 0, 0], logits[0, 0, 1] = 50.0, 50.0
    found = confidence.from_logits(logits, {"a": [1]})["a"]
    assert found["expected_dice"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx(0)
    empty = confidence.from_logits(-logits.flip(2).abs(), {"a": [1]})["a"]
    assert empty["expected_dice"] == 0


@given(st.integers(0, 2**32 - 1))
def test_expected_dice_is_the_dice_of_draws_from_the_softmax(seed: int) -> None:
    """Numerator and denominator in expectation: many draws come near."""
    generator = np.random.default_rng(seed)
    p = generator.uniform(size=200)
    logits = logits_of(*((1 - value, value) for value in p))
    expected = confidence.from_logits(logits, {"a": [1]})["a"]["expected_dice"]
    segmented = p > 0.5
    drawn = generator.uniform(size=(2000, 200)) < p
    dice = 2 * (drawn & segmented).sum(1) / (drawn.sum(1) + segmented.sum())
    assert expected == pytest.approx(dice.mean(), abs=0.01)


def test_volume_and_pieces() -> None:
    label_map = np.zeros((4, 6, 6), np.uint8)
    label_map[0, 0, 0] = 1
    label_map[1, 1, 1] = 1  # touches the first by a corner
    label_map[3, 4:6, 4] = 2
    label_map[3, 0, 5] = 1
    found = confidence.from_label_map(
        label_map, {"a": [1], "b": [2], "ab": [1, 2], "c": [3]}, (1, 2, 3)
    )
    assert found["a"] == {"volume_ml": pytest.approx(0.018), "components": 2}
    assert found["b"] == {"volume_ml": pytest.approx(0.012), "components": 1}
    assert found["ab"] == {"volume_ml": pytest.approx(0.030), "components": 3}
    assert found["c"] == {"volume_ml": 0, "components": 0}
    nothing = confidence.from_label_map(label_map * 0, {"a": [1]}, (1, 1, 1))
    assert nothing["a"] == {"volume_ml": 0, "components": 0}


def test_image_statistics_leave_zeros_out() -> None:
    data = np.zeros((2, 1, 3, 4), np.float32)
    data[0].flat[:5] = [1, 2, 3, 4, 10]
    first, second = confidence.image_statistics(data)
    named = dict(zip(confidence.IMAGE_STATISTICS, first, strict=True))
    assert named["mean"] == 4
    assert named["sd"] == pytest.approx(np.std([1, 2, 3, 4, 10]))
    assert (named["p25"], named["p50"], named["p75"]) == (2, 3, 4)
    assert second == [0] * len(confidence.IMAGE_STATISTICS)
