"""Who gets which defect or control."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casesim.cohort.phantom import catalogue
from casesim.cohort.phantom.catalogue import CONTROLS, IMAGE_DEFECTS, LABEL_DEFECTS
from casesim.errors import UserError


def test_import_needs_the_standard_library_only() -> None:
    """Case names and planted defects are asked for on every start of Snakemake."""
    code = (
        "import sys; from casesim.cohort.phantom import catalogue; "
        "catalogue.assignments({'defects': {'shifted_label': 1}}, "
        "catalogue.case_ids(9), 0); "
        "print(sorted({'numpy', 'scipy', 'SimpleITK', 'torch'} & set(sys.modules)))"
    )
    path = [entry for entry in sys.path if entry]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


numbers = st.integers(0, 4)


planted_config = st.fixed_dictionaries(
    {
        "defects": st.dictionaries(
            st.sampled_from(LABEL_DEFECTS + IMAGE_DEFECTS), numbers
        ),
        "controls": st.dictionaries(st.sampled_from(CONTROLS), numbers),
    }
)


@given(config=planted_config, seed=st.integers(0, 9), data=st.data())
def test_assignments_plant_what_is_asked_for(
    config: dict[str, dict[str, int]], seed: int, data: st.DataObject
) -> None:
    cases = catalogue.case_ids(50)
    found = catalogue.assignments(config, cases, seed)
    wanted = {**config["defects"], **config["controls"]}
    assert set(found) <= set(cases)
    for name in LABEL_DEFECTS + IMAGE_DEFECTS + CONTROLS:
        assert list(found.values()).count(name) == wanted.get(name, 0)
    shuffled = data.draw(st.permutations(cases))
    assert catalogue.assignments(config, shuffled, seed) == found


def test_assignments_depend_on_the_seed() -> None:
    config = {"defects": {"swapped_labels": 3}}
    found = {
        tuple(sorted(catalogue.assignments(config, catalogue.case_ids(12), seed)))
        for seed in range(10)
    }
    assert len(found) > 5


def test_nothing_planted_without_being_asked() -> None:
    assert catalogue.assignments({}, catalogue.case_ids(5), 0) == {}


def test_too_many_planted_cases_are_refused() -> None:
    config = {"defects": {"swapped_labels": 2}, "controls": {"multifocal": 1}}
    assert len(catalogue.assignments(config, catalogue.case_ids(3), 0)) == 3
    with pytest.raises(UserError, match="3 defects and controls, but there are only 2"):
        catalogue.assignments(config, catalogue.case_ids(2), 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"defects": {"multifocal": 1}}, "multifocal"),
        ({"controls": {"no_such": 1}}, "no_such"),
        ({"defects": {"missed_lesion": -1}}, "missed_lesion"),
    ],
)
def test_bad_names_and_numbers_are_refused(
    config: dict[str, dict[str, int]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        catalogue.assignments(config, catalogue.case_ids(3), 0)


def test_case_ids() -> None:
    assert catalogue.case_ids(2) == ["phantom_001", "phantom_002"]
    assert catalogue.case_ids(0) == []
    assert catalogue.case_ids(100)[-1] == "phantom_100"
