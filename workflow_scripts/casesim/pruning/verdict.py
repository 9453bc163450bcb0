"""Whether leaving cases out helped, and whether this design could have told.

The rules, and what a verdict does not mean, are in docs/method.md; the functions here
follow its order and its names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from casesim.pruning.arms import RELABELLED, is_control_of
from casesim.pruning.noise import (
    AgainstRandom,
    TrainingNoise,
    against_random,
    change_interval,
    detectable,
    training_noise,
)
from casesim.pruning.statistics import ALPHA, case_means, mean_or_nan, sd_or_nan

Array = npt.NDArray[np.float64]

# Identical nnU-Net runs differ by a point of Dice, so less than two says little.
RELEVANT_CHANGE = 0.02
# With five cases no two-sided signed-rank test can come below 0.0625.
MIN_HELD_OUT = 6


@dataclass(frozen=True)
class Controls:
    """What is drawn at random beside an arm, as sentences call it.

    Attributes:
        name: one of them.
        choices: what they do.
        no_noise: why the training noise can be unknown.
    """

    name: str
    choices: str
    no_noise: str


RANDOM_ARMS = Controls(
    "random arm",
    "random removals",
    "there is one seed, and fewer than two random arms",
)


@dataclass(frozen=True)
class Evidence:
    """What the verdict on one arm rests on: changes on held-out cases.

    Attributes:
        arm: name of the arm.
        n: number of held-out cases with a defined pair.
        mean: mean change over cases.
        case_sd: standard deviation of the cases' mean changes.
        mean_by_seed: mean change for each seed.
        noise: training noise, None where unknown.
        n_randoms: number of random arms.
        random_sd: standard deviation of the random arms' mean changes; NaN for fewer
            than two.
        random: the comparison with the random arms, None where there are none and for
            random arms themselves, and for `relabelled`, which removes nothing.
        controls: what sentences call the random arms.
    """

    arm: str
    n: int
    mean: float
    case_sd: float
    mean_by_seed: list[float]
    noise: TrainingNoise | None
    n_randoms: int
    random_sd: float
    random: AgainstRandom | None
    controls: Controls = RANDOM_ARMS

    @property
    def n_seeds(self) -> int:
        return len(self.mean_by_seed)

    @property
    def interval(self) -> tuple[float, float]:
        """See `change_interval`; NaN where the noise is unknown."""
        if self.noise is None or self.n < 2:
            return math.nan, math.nan
        return change_interval(
            self.mean, self.case_sd, self.n, self.noise, self.n_seeds
        )

    @property
    def detectable(self) -> float:
        """See `detectable`; NaN where the noise is unknown."""
        if self.noise is None or self.n < 2:
            return math.nan
        return detectable(
            self.case_sd,
            self.n,
            self.noise,
            self.n_seeds,
            self.random_sd,
            self.n_randoms,
        )


def gather(arms: Sequence[str], changes: Array) -> list[Evidence]:
    """The evidence on each arm.

    Args:
        arms: names of all arms, random ones included. Each is compared with the random
            arms of its own size.
        changes: changes on the held-out cases, (arm, seed, case).
    """
    defined = ~np.isnan(changes)
    number = defined.sum(axis=2)
    totals = np.where(defined, changes, 0).sum(axis=2)
    # (arm, seed); without a mean for each, nothing can be said on noise and controls.
    means = np.where(number > 0, totals / np.maximum(number, 1), np.nan)
    complete = changes.size > 0 and bool((number > 0).all())
    found = []
    for a, arm in enumerate(arms):
        is_control = np.array([is_control_of(name, arm) for name in arms], dtype=bool)
        noise = training_noise(means, is_control) if complete else None
        randoms = means[is_control].mean(axis=1)
        by_case = case_means(changes[a])
        beside = None
        alone = is_control[a] or arm == RELABELLED
        if complete and is_control.any() and not alone:
            beside = against_random(float(means[a].mean()), randoms)
        found.append(
            Evidence(
                arm=arm,
                n=by_case.size,
                mean=mean_or_nan(by_case),
                case_sd=sd_or_nan(by_case),
                mean_by_seed=[float(value) for value in means[a]],
                noise=noise,
                n_randoms=randoms.size,
                random_sd=sd_or_nan(randoms),
                random=beside,
            )
        )
    return found


@dataclass(frozen=True)
class Verdict:
    """One of `helps`, `harms`, `no difference larger than x`, `cannot tell`; a
    sentence."""

    word: str
    sentence: str


def verdict(evidence: Evidence) -> Verdict:
    """Judge one arm by the rules in docs/method.md, which are tried in this order."""
    e = evidence
    if e.n == 0:
        return _cannot_tell(e, "there are no held-out cases")
    if e.n < MIN_HELD_OUT:
        return _cannot_tell(
            e,
            f"{e.n} held-out {'case is' if e.n == 1 else 'cases are'} too few "
            f"(at least {MIN_HELD_OUT})",
        )
    if e.noise is None and e.n_seeds == 1:
        return _cannot_tell(e, f"the training noise is unknown: {e.controls.no_noise}")
    if e.noise is None:
        return _cannot_tell(
            e, "one of the models compared has no held-out case with a defined Dice"
        )
    low, high = e.interval
    seeds = f"{e.n_seeds} seed" if e.n_seeds == 1 else f"{e.n_seeds} seeds"
    change = (
        f"held-out Dice changes by {e.mean:+.3f} (95 % interval {low:+.3f} to "
        f"{high:+.3f}, training noise included; {e.n} cases, {seeds})"
    )
    if high < 0:
        return Verdict("harms", f"{e.arm} harms: {change}.")
    if low > 0 and e.arm == RELABELLED:
        # Nothing is removed, so that no random removal is a control.
        return Verdict("helps", f"{e.arm} helps: {change}.")
    if low > 0:
        if e.random is None:
            return _cannot_tell(
                e, f"{change}, but there is no {e.controls.name} beside it"
            )
        beside = _beside_random(e.random, e.n_randoms, e.controls.name)
        if e.random.better:
            return Verdict("helps", f"{e.arm} helps: {change}, {beside}.")
        if e.random.floor > ALPHA:
            return _cannot_tell(
                e,
                f"{change}, but the {e.controls.name}s are too few or too close: "
                f"{beside}",
            )
        return _cannot_tell(
            e, f"{change}, but {e.controls.choices} do as well: {beside}"
        )
    limit = max(-low, high)
    if limit <= RELEVANT_CHANGE:
        # Rounded up, so that the sentence does not claim more than the interval.
        word = f"no difference larger than {math.ceil(limit * 1000 - 1e-9) / 1000:.3f}"
        return Verdict(word, f"{e.arm} makes {word}: {change}.")
    of_training = 2 * e.noise.sd**2 / e.n_seeds
    if e.noise.source == "random_arms":
        remedy = "one seed leaves the training noise to be guessed from the random arms"
    elif of_training > e.case_sd**2 / e.n:
        remedy = "mostly training noise, which more seeds would lower"
    else:
        remedy = (
            "mostly differences between cases, of which more would have to be held out"
        )
    return _cannot_tell(
        e, f"{change}: the interval reaches beyond {RELEVANT_CHANGE} ({remedy})"
    )


def _cannot_tell(e: Evidence, reason: str) -> Verdict:
    return Verdict("cannot tell", f"{e.arm}: cannot tell, because {reason}.")


def _beside_random(random: AgainstRandom, number: int, name: str) -> str:
    ahead = round((1 - random.p) * (number + 1))
    text = f"better than {ahead} of {number} {name}s (p = {random.p:.3g}"
    if random.floor > ALPHA:
        text += f", cannot be below {random.floor:.2g}"
        if not math.isnan(random.spread_p):
            text += f"; p = {random.spread_p:.2g} against their spread"
    return f"{text})"
