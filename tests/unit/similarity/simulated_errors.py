"""Errors of many models on many cases, of a cohort whose defects are known.

A fast stand-in for trainings: how much a model draws too much or too little, and how
well it tells labels apart, are what its own train case taught it, plus noise; what it
is compared with is the label map of the evaluated case, right or wrong.
"""

from dataclasses import dataclass

import numpy as np

from casesim.inference.errors import Errors

LABELS = ["edema", "core", "rim"]
SHARES = np.array([0.6, 0.2, 0.2])


@dataclass(frozen=True)
class Defect:
    """What is wrong with a label map, and what a model learns of it.

    Attributes:
        grown: logarithm of drawn over true volume (below 0: too small).
        apart: share of the drawn map that lies where nothing is.
        exchanged: two positions in `LABELS` whose names are exchanged.
        hard: how much of every model's overlap with the case is lost, though its map
            is right.
        taught: how much of the defect its model carries to others.
    """

    grown: float = 0.0
    apart: float = 0.0
    exchanged: tuple[int, int] | None = None
    hard: float = 0.0
    taught: float = 1.0


SOUND = Defect()


def simulate_errors(
    defects: list[Defect], seed: int = 0, noise: float = 1.0
) -> tuple[Errors, Errors]:
    """Errors of the fine-tuned models on all cases, and of a base model.

    Args:
        defects: of each case; every case is a train case.
        seed, noise: of the draws; 1 is as much as real fine-tunes have.
    """
    draw = np.random.default_rng(seed)
    number = len(defects)
    names = [f"case_{i:03d}" for i in range(number)]
    size = np.exp(draw.normal(9, 0.6, number))
    ease = np.clip(0.88 + noise * draw.normal(0, 0.03, number), 0.5, 0.97)
    habit = noise * draw.normal(0, 0.08, number)
    confusion = np.zeros((number + 1, number, 4, 4))
    far = np.zeros((number + 1, number))
    for i in range(number + 1):
        teacher = defects[i] if i < number else SOUND
        for j, case in enumerate(defects):
            bias = (habit[i] + teacher.taught * teacher.grown) if i < number else 0.0
            bias += noise * draw.normal(0, 0.05)
            overlap = ease[j] - case.hard + noise * draw.normal(0, 0.02)
            overlap *= 1 - 0.6 * teacher.taught * teacher.apart
            confusion[i, j] = _cell(size[j], bias, overlap, teacher, case, draw, noise)
            far[i, j] = np.clip(0.1 + 0.5 * case.apart + 0.3 * teacher.apart, 0, 1)
    wrong = confusion[..., 0, 1:].sum(axis=-1), confusion[..., 1:, 0].sum(axis=-1)
    bands = [
        total[..., None] * np.stack([(1 - far) * share for share in (0.5, 0.3, 0.2)], 2)
        for total in wrong
    ]
    bands = [
        np.concatenate([near, (far * total)[..., None], 0 * near[..., :1]], axis=2)
        for near, total in zip(bands, wrong, strict=True)
    ]
    whole = Errors(
        [*(f"finetuned/{name}" for name in names), "base"],
        names,
        LABELS,
        confusion,
        *bands,
    )
    return whole.select(whole.models[:-1], names), whole.select(["base"], names)


def _cell(
    size: float,
    bias: float,
    overlap: float,
    teacher: Defect,
    case: Defect,
    draw: np.random.Generator,
    noise: float,
) -> np.ndarray:
    """Confusion of one cell in voxels; rows reference, columns predicted."""
    drawn, referred = size * np.exp(bias), size * np.exp(case.grown)
    both = overlap * (1 - case.apart) * min(drawn, referred)
    table = np.zeros((4, 4))
    mixed = np.clip(0.08 + noise * draw.normal(0, 0.02), 0, 0.3)
    within = (1 - mixed) * np.diag(SHARES) + mixed * np.outer(SHARES, SHARES)
    within = _rename(within, case.exchanged, rows=True)
    within = _rename(within, teacher.exchanged, rows=False)
    table[1:, 1:] = both * within
    table[1:, 0] = (referred - both) * SHARES
    table[0, 1:] = (drawn - both) * SHARES
    table[0, 0] = 20 * size
    return table


def _rename(table: np.ndarray, pair: tuple[int, int] | None, rows: bool) -> np.ndarray:
    if pair is None:
        return table
    order = np.arange(3)
    order[list(pair)] = order[list(pair)[::-1]]
    return table[order] if rows else table[:, order]
