"""How the segmentations of one case by all models agree, region by region.

Three numbers for each model, from label maps alone: Dice with the base model's, Dice
with the consensus of the others, and the mean over all others. They come from maps of
votes (how many models put a voxel into the region), so that the work grows with the
number of models and not with that of their pairs, and two label maps are in memory at
once. As everywhere, Dice of two empty masks is NaN (`overlap.dice`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from casesim.inference.overlap import dice

AGREEMENTS = ("agree_base", "agree_consensus", "agree_others")


def agreement(
    models: Sequence[str],
    read: Callable[[str], np.ndarray],
    regions: Mapping[str, Sequence[int]],
    base: str = "base",
) -> dict[tuple[str, str], dict[str, float]]:
    """Agreement of each model with the others on one case.

    With v the votes of the R models, |A| the size of a model's region, and sums over
    voxels:

    * `agree_base`: Dice of A and the base model's region (1 for the base itself, unless
      it is empty).
    * `agree_consensus`: Dice of A and the voxels that more than half of the *other*
      R - 1 models put into the region: the model has no vote on what it is judged by.
    * `agree_others`: mean agreement with the others as a ratio of sums,
      2 Σ_{A}(v - 1) / ((R - 1)|A| + Σ v - |A|), which is the Dice over all pairs of A
      and one other model pooled. (The mean of the pairs' Dice would need every pair.)

    Args:
        models: names; `base` must be among them.
        read: gives the label map, uint8 of one shape, of a model. It is called twice
            for each model.
        regions: name to label numbers.
        base: name of the base model.

    Returns:
        (model, region) to the three numbers. Alone, a model agrees with nobody: NaN.

    Raises:
        ValueError: without the base model, or for label maps of different shapes.
    """
    if base not in models:
        raise ValueError(f"the model {base} is not among {', '.join(models)}")
    of_base = np.asarray(read(base))
    votes = {name: np.zeros(of_base.shape, np.uint16) for name in regions}
    inside = {name: _members(numbers) for name, numbers in regions.items()}
    for model in models:
        label_map = np.asarray(read(model))
        if label_map.shape != of_base.shape:
            raise ValueError(
                f"the label map of {model} has shape {label_map.shape}, that of {base} "
                f"{of_base.shape}"
            )
        for name, members in inside.items():
            votes[name] += members[label_map]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for model in models:
        label_map = np.asarray(read(model))
        for name, members in inside.items():
            numbers = _agreements(
                members[label_map], members[of_base], votes[name], len(models)
            )
            found[model, name] = dict(zip(AGREEMENTS, numbers, strict=True))
    return found


def _members(numbers: Sequence[int]) -> np.ndarray:
    """For each label number up to 255, whether it is one of these."""
    members = np.zeros(256, bool)
    members[list(numbers)] = True
    return members


def _agreements(
    own: np.ndarray, of_base: np.ndarray, votes: np.ndarray, number: int
) -> tuple[float, float, float]:
    others = number - 1
    if others == 0:
        return float("nan"), float("nan"), float("nan")
    consensus = 2 * (votes - own) > others
    size = int(own.sum())
    shared = int(votes[own].sum(dtype=np.int64)) - size
    cast = int(votes.sum(dtype=np.int64)) - size
    return (
        _dice(own, of_base),
        _dice(own, consensus),
        dice(shared, others * size - shared, cast - shared),
    )


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    both = int(np.count_nonzero(one & other))
    return dice(both, int(one.sum()) - both, int(other.sum()) - both)
