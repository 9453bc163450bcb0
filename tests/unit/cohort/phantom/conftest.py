"""Patients with nothing planted."""

import pytest
from unit.cohort.phantom.patients import planted

from casesim.cohort.phantom import catalogue
from casesim.cohort.phantom.patient import Phantom


@pytest.fixture(scope="module")
def sound() -> dict[str, Phantom]:
    """Patients with nothing planted."""
    return {case: planted("", case) for case in catalogue.case_ids(12)}
