"""Scanners: their protocols, and the image that one makes of a patient."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from casesim.cohort.phantom.anatomy import voxel_centres
from casesim.cohort.phantom.catalogue import CHANNEL_NAMES
from casesim.cohort.phantom.draws import Floats, generator, smooth_noise, texture
from casesim.cohort.phantom.sequences import Protocol, add_rician_noise, signals
from casesim.cohort.phantom.tissues import NUMBER, TISSUES, Tissue

_DEFAULT_SCANNERS = 3


def choose_scanner(
    case_id: str, config: Mapping[str, Any], planted: str, seed: int
) -> tuple[int, Protocol]:
    """The scanner a case comes from, and its protocol with that day's gain."""
    visit = generator(seed, case_id, "scanner")
    number = int(visit.integers(int(config.get("scanners", _DEFAULT_SCANNERS))))
    drift = visit.uniform(0.9, 1.1, len(CHANNEL_NAMES))
    draw = generator(seed, f"scanner {number}", "protocol")
    # Times of common clinical protocols. TI falls short of the null of CSF, which
    # therefore is dark on FLAIR, but not black.
    flair_tr = draw.uniform(8500, 10000)
    csf_t1 = TISSUES["csf"].t1
    null = csf_t1 * math.log(2 / (1 + math.exp(-flair_tr / csf_t1)))
    gain = 600 * np.exp(draw.uniform(math.log(0.5), math.log(2), len(CHANNEL_NAMES)))
    across, within = draw.uniform(0.2, 0.5), draw.uniform(0.25, 0.5)
    protocol = Protocol(
        flair=(flair_tr, draw.uniform(110, 130), null * draw.uniform(0.93, 0.96)),
        t1w=(draw.uniform(450, 600), draw.uniform(9, 14)),
        t2w=(draw.uniform(4000, 5500), draw.uniform(85, 110)),
        gain=tuple(float(value) for value in gain * drift),
        noise=draw.uniform(0.02, 0.05),
        non_uniformity=draw.uniform(0.0, 0.4),
        blur=(across, within, within),
    )
    if planted == "odd_scanner":
        # low field, thick blur, strong coil profile: legible, but unlike the others
        protocol = replace(
            protocol,
            t1w=(800.0, 25.0),
            t2w=(3000.0, 70.0),
            flair=(6500.0, 90.0, 1650.0),
            noise=0.09,
            non_uniformity=0.8,
            blur=(0.6, 0.9, 0.9),
        )
    return number, protocol


def acquire(
    case_id: str,
    fractions: Floats,
    protocol: Protocol,
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.float32]:
    """Image (channel, z, y, x) of tissue fractions (tissue, z, y, x)."""
    draw = generator(seed, case_id, "tissue")
    noise = generator(seed, case_id, "noise")
    patient = _patient_tissues(draw)
    table = np.array([signals(tissue, protocol) for tissue in patient])
    shape = fractions.shape[1:]
    axes = [voxel_centres(n, width) for n, width in zip(shape, spacing, strict=True)]
    brain = fractions[NUMBER["air"]] < 0.5

    # Texture: tissue is not uniform, and what makes it so shows on all channels.
    lesion = fractions[NUMBER["oedema"] :].sum(axis=0)
    strength = 0.025 + 0.05 * lesion
    common = texture(noise, shape, 0.8)
    patches = smooth_noise(noise, axes, 7.0) * lesion
    image = np.empty((len(CHANNEL_NAMES), *shape), np.float32)
    for channel, name in enumerate(CHANNEL_NAMES):
        signal = np.tensordot(table[:, channel], fractions, axes=1)
        own = texture(noise, shape, 0.6)
        # water darkens T1w where it brightens the others
        sign = -0.5 if name in ("T1w", "T1gd") else 1.0
        signal *= 1 + strength * (0.7 * common + 0.7 * own) + 0.08 * sign * patches
        signal *= _bias_field(noise, axes, brain, protocol.non_uniformity)
        signal = gaussian_filter(np.maximum(signal, 0), protocol.blur)
        reference = "csf" if name == "T2w" else "white_matter"
        sigma = protocol.noise * table[NUMBER[reference], channel]
        signal = add_rician_noise(signal, sigma, noise)
        image[channel] = np.where(brain, signal * protocol.gain[channel], 0)
    return image


def _patient_tissues(draw: np.random.Generator) -> list[Tissue]:
    """The tissues of one patient: each parameter within a few percent of its mean;
    contrast uptake differs more (a rim of 1.3 to 1.8 times white matter)."""
    tissues = []
    for name, tissue in TISSUES.items():
        t1, t2, density = (1 + 0.03 * draw.standard_normal(3).clip(-2, 2)).tolist()
        uptake = draw.uniform(1.6, 3.6) if name == "enhancing" else tissue.uptake
        tissues.append(
            Tissue(tissue.t1 * t1, tissue.t2 * t2, tissue.density * density, uptake)
        )
    return tissues


def _bias_field(
    draw: np.random.Generator,
    axes: Sequence[Floats],
    brain: NDArray[np.bool_],
    non_uniformity: float,
) -> Floats:
    """Smooth factor that spans 1 - x/2 to 1 + x/2 over the brain (BrainWeb INU)."""
    field = smooth_noise(draw, axes, 55.0)
    low, high = field[brain].min(), field[brain].max()
    return 1 + non_uniformity * ((field - low) / (high - low) - 0.5)
