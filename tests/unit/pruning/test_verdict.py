"""The verdict's rules, and how often they are right in simulations."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from unit.pruning.comparisons import NAN
from unit.pruning.experiments import ARM, CASE, DESIGNS, RESIDUAL, TRAINING, simulate

from casesim.pruning.noise import Array, TrainingNoise, against_random, detectable
from casesim.pruning.verdict import Evidence, gather, verdict


def evidence_of(
    mean: float = 0.05,
    *,
    n: int = 40,
    case_sd: float = 0.03,
    seeds: int = 3,
    noise: TrainingNoise | None = TrainingNoise(0.005, 9, "seeds"),  # noqa: B008
    randoms: Array | None = None,
) -> Evidence:
    randoms = np.linspace(-0.01, 0.01, 19) if randoms is None else randoms
    return Evidence(
        arm="worst_cluster",
        n=n,
        mean=mean,
        case_sd=case_sd,
        mean_by_seed=[mean] * seeds,
        noise=noise,
        n_randoms=randoms.size,
        random_sd=randoms.std(ddof=1) if randoms.size > 1 else NAN,
        random=against_random(mean, randoms) if randoms.size else None,
    )


NO_RANDOMS = np.zeros(0)


@pytest.mark.parametrize(
    ("found", "word", "reason"),
    [
        (evidence_of(), "helps", r"\+0\.050 .*better than 19 of 19 random arms"),
        (evidence_of(-0.05), "harms", r"-0\.050"),
        (
            evidence_of(0.001),
            "no difference larger than 0.014",
            r"\+0\.001 .*interval -0\.012 to \+0\.014",
        ),
        (evidence_of(n=0), "cannot tell", "no held-out cases"),
        (evidence_of(n=5), "cannot tell", "5 held-out cases are too few"),
        (
            evidence_of(seeds=1, noise=None, randoms=NO_RANDOMS),
            "cannot tell",
            "training noise is unknown: there is one seed",
        ),
        (
            evidence_of(noise=None),
            "cannot tell",
            "no held-out case with a defined Dice",
        ),
        (
            evidence_of(randoms=NO_RANDOMS),
            "cannot tell",
            "no random arm beside it",
        ),
        (
            evidence_of(randoms=np.array([0.0, 0.04, -0.04])),
            "cannot tell",
            r"too few or too close: better than 3 of 3 .*cannot be below 0\.25",
        ),
        (
            evidence_of(randoms=np.linspace(0.03, 0.06, 19)),
            "cannot tell",
            "random removals do as well",
        ),
        (
            evidence_of(0.01, noise=TrainingNoise(0.02, 9, "seeds")),
            "cannot tell",
            "mostly training noise",
        ),
        (
            evidence_of(0.01, case_sd=0.2),
            "cannot tell",
            "mostly differences between cases",
        ),
        (
            evidence_of(0.01, seeds=1, noise=TrainingNoise(0.02, 4, "random_arms")),
            "cannot tell",
            "one seed leaves the training noise to be guessed",
        ),
    ],
)
def test_verdict_follows_its_rules(found: Evidence, word: str, reason: str) -> None:
    judged = verdict(found)
    assert judged.word == word
    assert pd.Series([judged.sentence]).str.contains(reason).all(), judged.sentence
    assert judged.sentence.startswith("worst_cluster")


def stated_detectable(design: tuple[int, int, int]) -> float:
    """What `detectable` states when it is told the true noise."""
    n_seeds, n_randoms, n = design
    training = math.sqrt(TRAINING**2 + RESIDUAL**2 / n)
    randoms = math.sqrt(ARM**2 + CASE**2 / n + training**2 / n_seeds)
    case_sd = math.sqrt(CASE**2 + 2 * RESIDUAL**2 / n_seeds)
    if n_seeds > 1:
        noise = TrainingNoise(training, (n_randoms + 2) * (n_seeds - 1), "seeds")
    else:
        noise = TrainingNoise(randoms, n_randoms - 1, "random_arms")
    return detectable(case_sd, n, noise, n_seeds, randoms, n_randoms)


@pytest.mark.parametrize(
    ("design", "change"),
    [
        ((5, 19, 100), 0.015),
        ((5, 19, 200), 0.014),
        ((5, 19, 384), 0.013),
        ((5, 5, 200), 0.015),
        ((2, 19, 200), 0.020),
        ((3, 19, 200), 0.016),
    ],
)
def test_the_reasons_given_in_rigorous_yaml(
    design: tuple[int, int, int], change: float
) -> None:
    assert round(stated_detectable(design), 3) == change


def share_of_helps(
    design: tuple[int, int, int], effect: float, experiments: int, seed: int
) -> float:
    generator = np.random.default_rng(seed)
    helps = 0
    for _ in range(experiments):
        found = gather(*simulate(generator, design, effect))
        helps += verdict(found[0]).word == "helps"
    return helps / experiments


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_without_an_effect_the_verdict_is_helps_in_one_of_twenty_at_most(
    design: tuple[int, int, int],
) -> None:
    assert share_of_helps(design, 0.0, 150, seed=11) <= 0.05


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_the_stated_detectable_effect_is_found_in_about_80_percent(
    design: tuple[int, int, int],
) -> None:
    effect = stated_detectable(design)
    assert share_of_helps(design, effect, 200, seed=12) == pytest.approx(0.8, abs=0.1)
    assert share_of_helps(design, effect / 2, 50, seed=13) < 0.65


def test_each_arm_is_judged_by_the_random_arms_of_its_size() -> None:
    arms = ["worst_cluster", "reviewed", "relabelled"]
    arms += [f"random_{r}" for r in (1, 2, 3)]
    arms += [f"random_reviewed_{r}" for r in (1, 2)]
    # (arm, one seed, two cases with the same change)
    means = [0.05, 0.03, 0.04, -0.01, 0.0, 0.01, 0.1, 0.2]
    changes = np.repeat(np.array(means)[:, None, None], 2, axis=2)
    found = {e.arm: e for e in gather(arms, changes)}
    worst, reviewed = found["worst_cluster"], found["reviewed"]
    assert (worst.n_randoms, reviewed.n_randoms) == (3, 2)
    assert worst.random is not None
    assert reviewed.random is not None
    # Better than all three of its own; worse than both of its own.
    assert worst.random.p == pytest.approx(1 / 4)
    assert reviewed.random.p == pytest.approx(1)
    assert worst.noise is not None
    assert reviewed.noise is not None
    assert worst.noise.sd == pytest.approx(0.01)
    assert reviewed.noise.sd == pytest.approx(np.std([0.1, 0.2], ddof=1))
    # Nothing is removed: no random removal is a control, but it tells the noise.
    assert found["relabelled"].random is None
    assert found["relabelled"].noise == worst.noise


def test_relabelling_needs_no_random_arm_to_help() -> None:
    found = replace(evidence_of(randoms=NO_RANDOMS), arm="relabelled")
    assert verdict(found).word == "helps"
    assert verdict(found).sentence.startswith("relabelled helps: held-out Dice")
    assert verdict(replace(found, arm="reviewed")).word == "cannot tell"
