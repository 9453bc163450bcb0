"""Agreement by maps of votes, against all pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casesim.adaptive.agreement import agreement

A = {"a": [1]}


def maps(**voxels: list[int]) -> dict[str, np.ndarray]:
    return {
        name: np.array(values, np.uint8).reshape(1, 1, -1)
        for name, values in voxels.items()
    }


def test_by_hand() -> None:
    given_maps = maps(base=[1, 1, 0, 0], x=[1, 1, 1, 0], y=[0, 1, 1, 0], z=[0, 0, 0, 0])
    found = agreement(list(given_maps), given_maps.__getitem__, A)
    assert found["base", "a"]["agree_base"] == 1
    assert found["x", "a"]["agree_base"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["z", "a"]["agree_base"] == 0
    # More than half of base, y and z: the second voxel. Half is not enough for base.
    assert found["x", "a"]["agree_consensus"] == pytest.approx(2 * 1 / (3 + 1))
    assert found["base", "a"]["agree_consensus"] == pytest.approx(2 * 1 / (2 + 2))
    # x shares 2 voxels with base, 2 with y, none with z; sizes 2, 2 and 0.
    assert found["x", "a"]["agree_others"] == pytest.approx(2 * 4 / (3 * 3 + 4))


def test_empty_regions_agree_on_nothing() -> None:
    given_maps = maps(base=[0, 0], x=[0, 0], y=[0, 2])
    found = agreement(list(given_maps), given_maps.__getitem__, {"a": [1], "b": [2]})
    assert all(math.isnan(number) for number in found["x", "a"].values())
    assert found["y", "b"]["agree_base"] == 0
    alone = agreement(["base"], given_maps.__getitem__, A)
    assert all(math.isnan(number) for number in alone["base", "a"].values())


def test_what_cannot_be_compared() -> None:
    given_maps = maps(base=[0, 1], x=[0, 1, 1])
    with pytest.raises(ValueError, match="x has shape"):
        agreement(list(given_maps), given_maps.__getitem__, A)
    with pytest.raises(ValueError, match="base is not among x"):
        agreement(["x"], given_maps.__getitem__, A)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_pooled_pairs_and_the_consensus_as_they_are_defined(
    seed: int, number: int
) -> None:
    generator = np.random.default_rng(seed)
    names = ["base", *(f"m{i}" for i in range(1, number))]
    label_maps = {
        n: generator.integers(0, 3, (2, 3, 4)).astype(np.uint8) for n in names
    }
    found = agreement(names, label_maps.__getitem__, {"a": [1], "ab": [1, 2]})
    for region, labels in (("a", [1]), ("ab", [1, 2])):
        masks = {n: np.isin(m, labels) for n, m in label_maps.items()}
        for name, own in masks.items():
            others = [mask for other, mask in masks.items() if other != name]
            both = sum(int((own & mask).sum()) for mask in others)
            sizes = sum(int(own.sum() + mask.sum()) for mask in others)
            pooled = 2 * both / sizes if sizes else math.nan
            consensus = np.mean(others, axis=0) > 0.5
            total = own.sum() + consensus.sum()
            agreed = 2 * (own & consensus).sum() / total if total else math.nan
            numbers = found[name, region]
            assert numbers["agree_others"] == pytest.approx(pooled, nan_ok=True)
            assert numbers["agree_consensus"] == pytest.approx(agreed, nan_ok=True)
