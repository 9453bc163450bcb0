"""One virtual patient: image, claimed label map and the truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casesim.cohort.phantom.acquisition import acquire, choose_scanner
from casesim.cohort.phantom.anatomy import draw_anatomy, read_grid
from casesim.cohort.phantom.catalogue import CONTROLS, IMAGE_DEFECTS, LABEL_DEFECTS
from casesim.cohort.phantom.defects import corrupt_channel, spoil_label
from casesim.cohort.phantom.lesions import draw_lesion
from casesim.cohort.phantom.tissues import NUMBER
from casesim.errors import UserError


@dataclass(frozen=True)
class Phantom:
    """One virtual patient.

    Attributes:
        image: float32 (channel, z, y, x); channels as in ``CHANNEL_NAMES``; zero
            outside the brain.
        label: uint8 (z, y, x), what the cohort claims: 0 background, 1 oedema,
            2 non-enhancing and necrotic core, 3 enhancing rim.
        truth: uint8 (z, y, x), the right label map (equal to ``label`` unless a
            label defect is planted).
        spacing: (z, y, x) in mm.
        scanner: number of the scanner that the image comes from.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    scanner: int


def generate(
    case_id: str, phantom_config: Mapping[str, Any], planted: str, seed: int
) -> Phantom:
    """One virtual patient.

    Anatomy, lesion, scanner and noise depend on ``seed`` and ``case_id`` alone, so a
    defect changes nothing but what it is meant to change; a control changes the
    lesion (or, for ``odd_scanner``, the scanner) and leaves the head as it is.

    Args:
        case_id: any text; see ``case_ids``.
        phantom_config: ``cohort.phantom``; ``shape`` in voxels (z, y, x), ``spacing``
            in mm (z, y, x), ``scanners`` the number of scanners.
        planted: a name from ``LABEL_DEFECTS``, ``IMAGE_DEFECTS`` or ``CONTROLS``, or
            empty for none.
        seed: ``cohort.seed``.

    Raises:
        UserError: unknown ``planted``, or a grid too coarse to hold the lesion.
    """
    if planted and planted not in LABEL_DEFECTS + IMAGE_DEFECTS + CONTROLS:
        raise UserError(f"No defect or control of the phantom is called {planted}.")
    shape, spacing = read_grid(phantom_config)
    scanner, protocol = choose_scanner(case_id, phantom_config, planted, seed)
    lesion = draw_lesion(case_id, planted, seed)
    fractions, truth = draw_anatomy(case_id, lesion, shape, spacing, seed)
    image = acquire(case_id, fractions, protocol, spacing, seed)
    label = truth.copy()
    if planted in LABEL_DEFECTS:
        brain = fractions[NUMBER["air"]] < 0.5
        label = spoil_label(case_id, planted, truth, brain, spacing, seed)
    elif planted in IMAGE_DEFECTS:
        image = corrupt_channel(case_id, image, seed)
    return Phantom(image, label, truth, spacing, scanner)
