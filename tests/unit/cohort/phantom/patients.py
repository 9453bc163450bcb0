"""Patients that several tests look at, made once."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casesim.cohort.phantom import patient
from casesim.cohort.phantom.patient import Phantom
from casesim.cohort.phantom.sequences import Protocol

CONFIG: dict[str, Any] = {
    "shape": [28, 56, 56],
    "spacing": [3.0, 3.0, 3.0],
    "scanners": 3,
}


SEED = 7


FLAIR, T1W, T1GD, T2W = range(4)


# The protocol of the table below: T1w TR 500 TE 12, T2w TR 4500 TE 95, FLAIR TR 9000
# TE 120 TI 1700 (ms).
PROTOCOL = Protocol(
    t1w=(500, 12),
    t2w=(4500, 95),
    flair=(9000, 120, 1700),
    gain=(1.0, 1.0, 1.0, 1.0),
    noise=0.0,
    non_uniformity=0.0,
    blur=(0.0, 0.0, 0.0),
)


@cache
def planted(name: str, case: str) -> Phantom:
    return patient.generate(case, CONFIG, name, SEED)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
