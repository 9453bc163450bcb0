"""Signal equations of the sequences, and the noise of magnitude images."""

import math
from dataclasses import dataclass

import numpy as np

from casesim.cohort.phantom.draws import Floats
from casesim.cohort.phantom.tissues import Tissue


@dataclass(frozen=True)
class Protocol:
    """What a scanner adds to the anatomy. Times in ms; ``gain`` per channel;
    ``noise`` is the standard deviation relative to white matter (CSF for T2w, as in
    BrainWeb); ``non_uniformity`` 0.2 means a field between 0.9 and 1.1; ``blur`` is
    the standard deviation of the point spread function in voxels (z, y, x)."""

    t1w: tuple[float, float]
    t2w: tuple[float, float]
    flair: tuple[float, float, float]
    gain: tuple[float, ...]
    noise: float
    non_uniformity: float
    blur: tuple[float, float, float]


def spin_echo(t1: float, t2: float, density: float, tr: float, te: float) -> float:
    """Signal of a spin echo (T1w, T2w); times in ms."""
    return density * (1 - math.exp(-tr / t1)) * math.exp(-te / t2)


def inversion_recovery(
    t1: float, t2: float, density: float, tr: float, te: float, ti: float
) -> float:
    """Magnitude signal of an inversion-recovery spin echo (FLAIR); times in ms."""
    recovered = 1 - 2 * math.exp(-ti / t1) + math.exp(-tr / t1)
    return density * abs(recovered) * math.exp(-te / t2)


def enhanced_t1(t1: float, uptake: float) -> float:
    """T1 in ms after contrast agent has added ``uptake`` (1/s) to 1/T1."""
    return 1 / (1 / t1 + uptake / 1000)


def signals(tissue: Tissue, protocol: Protocol) -> tuple[float, float, float, float]:
    """Signal of a tissue in each of ``CHANNEL_NAMES``, before gain."""
    t1, t2, density = tissue.t1, tissue.t2, tissue.density
    after = enhanced_t1(t1, tissue.uptake)
    return (
        inversion_recovery(t1, t2, density, *protocol.flair),
        spin_echo(t1, t2, density, *protocol.t1w),
        spin_echo(after, t2, density, *protocol.t1w),
        spin_echo(t1, t2, density, *protocol.t2w),
    )


def add_rician_noise(
    signal: Floats, sigma: float, generator: np.random.Generator
) -> Floats:
    """Magnitude of a complex signal whose two parts carry Gaussian noise.

    Args:
        signal: any shape, not negative.
        sigma: standard deviation of the noise in each part, in units of ``signal``.
        generator: source of the noise.

    Returns:
        Rician where there is signal, Rayleigh where there is none.
    """
    real = signal + generator.normal(0, sigma, signal.shape)
    return np.hypot(real, generator.normal(0, sigma, signal.shape))
