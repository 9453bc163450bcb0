"""Signal equations and noise against hand-made numbers."""

import math

import numpy as np
import pytest
from scipy.stats import rice
from unit.cohort.phantom.patients import PROTOCOL

from casesim.cohort.phantom import sequences
from casesim.cohort.phantom.tissues import TISSUES, Tissue


def test_spin_echo_by_hand() -> None:
    # TR = T1 and TE = T2: density (1 - 1/e) / e
    assert sequences.spin_echo(500, 80, 0.5, tr=500, te=80) == pytest.approx(
        0.5 * (1 - 1 / math.e) / math.e
    )


def test_inversion_recovery_by_hand() -> None:
    # TI at the null of an infinite TR leaves only the exp(-TR / T1) term
    signal = sequences.inversion_recovery(
        1000, 100, 1.0, tr=3000, te=100, ti=1000 * math.log(2)
    )
    assert signal == pytest.approx(math.exp(-3) * math.exp(-1))
    # before the null the magnetisation is negative, its magnitude is seen
    assert sequences.inversion_recovery(1000, 100, 1.0, tr=1e9, te=0, ti=0) == 1.0


def test_contrast_agent_shortens_t1() -> None:
    assert sequences.enhanced_t1(1000, 1.0) == pytest.approx(500)
    assert sequences.enhanced_t1(800, 0.0) == pytest.approx(800)


@pytest.mark.parametrize(
    ("tissue", "relative_to_white_matter"),
    [
        ("grey_matter", (1.16, 0.82, 0.84, 1.38)),
        ("csf", (0.01, 0.42, 0.41, 3.12)),
        ("oedema", (1.79, 0.74, 0.77, 2.37)),
        ("non_enhancing", (1.32, 0.65, 0.70, 2.08)),
        ("necrosis", (0.72, 0.49, 0.51, 2.98)),
        ("enhancing", (1.18, 0.67, 1.29, 1.76)),
    ],
)
def test_contrasts_equal_a_table_computed_elsewhere(
    tissue: str, relative_to_white_matter: tuple[float, ...]
) -> None:
    own = np.array(sequences.signals(TISSUES[tissue], PROTOCOL))
    white = np.array(sequences.signals(TISSUES["white_matter"], PROTOCOL))
    np.testing.assert_allclose(own / white, relative_to_white_matter, atol=0.011)


def test_nothing_gives_no_signal() -> None:
    assert sequences.signals(Tissue(1000, 100, 0.0, 0.0), PROTOCOL) == (0, 0, 0, 0)


@pytest.mark.parametrize("signal", [0.0, 1.0, 10.0])
def test_noise_has_the_moments_of_a_rice_distribution(signal: float) -> None:
    sigma = 0.7
    noisy = sequences.add_rician_noise(
        np.full((60, 60, 60), signal), sigma, np.random.default_rng(0)
    )
    expected = rice(signal / sigma, scale=sigma)
    assert noisy.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert noisy.std() == pytest.approx(expected.std(), rel=0.01)
    assert noisy.min() >= 0
