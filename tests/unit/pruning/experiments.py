"""Simulated experiments of known noise and effect, for the tests of this folder."""

import numpy as np

from casesim.pruning.noise import Array

DESIGNS = {
    "rigorous": (3, 19, 40),
    "few_random_arms": (3, 5, 40),
    "few_cases": (2, 3, 8),
    "planted": (2, 5, 12),
    "one_seed": (1, 5, 40),
    "one_seed_many_random_arms": (1, 19, 20),
}

# Standard deviations of Dice: of a training's mean, of a case's reaction to an arm, of
# one case in one training, and of what removals do by chance.
TRAINING, CASE, RESIDUAL, ARM = 0.006, 0.03, 0.02, 0.003


def simulate(
    generator: np.random.Generator, design: tuple[int, int, int], effect: float
) -> tuple[list[str], Array]:
    """Arms and changes (arm, seed, case); `effect` is what `worst_cluster` gains.

    All changes of one seed share the noise of its full model, as in reality.
    """
    n_seeds, n_randoms, n = design
    arms = ["worst_cluster", "best_cluster"]
    arms += [f"random_{r}" for r in range(1, n_randoms + 1)]
    shape = (len(arms) + 1, n_seeds, n)
    dice = TRAINING * generator.standard_normal((*shape[:2], 1))
    dice = dice + RESIDUAL * generator.standard_normal(shape)
    dice[1:] += ARM * generator.standard_normal((len(arms), 1, 1))
    dice[1:] += CASE * generator.standard_normal((len(arms), 1, n))
    dice[1] += effect
    return arms, dice[1:] - dice[:1]
