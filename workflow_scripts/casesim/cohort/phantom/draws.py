"""Randomness: a stream of its own for each purpose, and random fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from casesim.cohort.phantom.catalogue import stream_digest

Floats = NDArray[np.floating[Any]]


def generator(seed: int, case_id: str, stream: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that none disturbs another."""
    return np.random.default_rng(
        int.from_bytes(stream_digest(seed, case_id, stream)[:16], "big")
    )


def smooth_noise(
    generator: np.random.Generator, axes: Sequence[Floats], width: float
) -> Floats:
    """Gaussian random field of unit variance on a regular grid.

    Built from white noise on nodes that are fixed in space, so the field does not
    depend on the grid's resolution.

    Args:
        generator: source of the noise.
        axes: coordinates along z, y and x, in mm; constant beyond 110 mm, where there
            is no head.
        width: standard deviation of the Gaussian kernel in mm.
    """
    reach = 110.0
    nodes = np.arange(-reach - 3 * width, reach + 3 * width, width)
    field = generator.standard_normal((len(nodes),) * 3).astype(np.float32)
    for axis in axes:
        kernel = np.exp(
            -0.5 * ((axis.clip(-reach, reach)[:, None] - nodes) / width) ** 2
        )
        kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
        # contracts the first axis and appends the new one: after three rounds the
        # order is z, y, x again
        field = np.tensordot(field, kernel.astype(np.float32), axes=([0], [1]))
    return field


def texture(draw: np.random.Generator, shape: Sequence[int], width: float) -> Floats:
    """White noise smoothed over ``width`` voxels, mean 0 and variance 1."""
    texture = gaussian_filter(
        draw.standard_normal(shape).astype(np.float32), width, mode="wrap"
    )
    return (texture - texture.mean()) / texture.std()
