"""Bands of distance from the surface, against hand values and a search of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from casesim.inference.surface import (
    BANDS_MM,
    LAST_BAND,
    Reference,
    bands,
    count_by_band,
)


def slow_bands(reference: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distances between all pairs of voxels, one on each side of the surface."""
    result = np.full(reference.shape, LAST_BAND)
    sides = [np.argwhere((reference > 0) == side) for side in (False, True)]
    if not all(map(len, sides)):
        return result
    distances = cdist(sides[0] * np.array(spacing), sides[1] * np.array(spacing))
    for side, axis in ((sides[0], 1), (sides[1], 0)):
        for voxel, distance in zip(side, distances.min(axis=axis), strict=True):
            band = sum(distance > limit + 1e-6 for limit in BANDS_MM)
            result[tuple(voxel)] = band
    return result


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1.0, 1.0, 1.0), (3.5, 1.2, 0.9), (5.0, 0.1, 0.1)]),
    st.sampled_from([(3, 6, 7), (1, 9, 12), (8, 8, 8)]),
    st.floats(0, 1),
)
def test_bands_agree_with_a_search_of_all_pairs(
    seed: int,
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    share: float,
) -> None:
    draw = np.random.default_rng(seed)
    reference = draw.integers(1, 4, shape) * (draw.random(shape) < share**3)
    np.testing.assert_array_equal(
        bands(reference, spacing), slow_bands(reference, spacing)
    )


def test_bands_by_hand() -> None:
    reference = np.zeros((1, 1, 16), np.uint8)
    reference[0, 0, 2:4] = 2
    # Distances 2, 1, | 1, 1, | 1, 2, 3, ... mm.
    expected = [1, 0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
    assert bands(reference, (1.0, 1.0, 1.0))[0, 0].tolist() == expected


def test_only_a_box_is_computed_and_nothing_beyond_it_is_near() -> None:
    reference = np.zeros((40, 40, 40), np.uint8)
    reference[18:22, 3:9, 39:] = 1
    found = bands(reference, (1.0, 2.0, 1.0))
    np.testing.assert_array_equal(found, slow_bands(reference, (1.0, 2.0, 1.0)))


@pytest.mark.parametrize("value", [0, 1])
def test_a_map_without_a_surface_is_all_far(value: int) -> None:
    found = bands(np.full((3, 3, 3), value), (1.0, 1.0, 1.0))
    assert (found == LAST_BAND).all()


def test_errors_are_counted_by_band() -> None:
    reference = np.zeros((1, 1, 16), np.uint8)
    reference[0, 0, 2:4] = 2
    prediction = np.zeros_like(reference)
    prediction[0, 0, 3:8] = 1  # label 1 for 2 is no error of the foreground
    prediction[0, 0, 15] = 3
    counts = count_by_band(prediction, Reference.of(reference, (1.0, 1.0, 1.0)))
    assert counts == {"fp": [1, 1, 2, 0, 1], "fn": [1, 0, 0, 0, 0]}
