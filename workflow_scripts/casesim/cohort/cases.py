"""What a case and a cohort are: files, roles, channels and labels."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from casesim.cohort import spoil
from casesim.cohort.phantom import catalogue
from casesim.cohort.problem import Problem
from casesim.cohort.targets import IGNORE, LABELS_ALONE, Targets

ROLES = ("pool", "held_out", "calibration", "new")
"""What a case is there for; `docs` and `cohort.tsv` use the same words."""


@dataclass(frozen=True)
class Case:
    """One selected case, and where its files are.

    `images` is one 4-D file (MSD) or one file for each channel; empty for a phantom,
    as is `label`, which a new case does not have either. `role` is one of `ROLES`.
    `missing` are those files that were not in the folder's listing. `patient` is equal
    for scans of one patient. `spoilt` is what `cohort.spoil` does to the imported label
    map (`spoil.Spoilt`), `other_label` the file that it needs for that.
    """

    id: str
    images: tuple[str, ...]
    label: str | None
    role: str
    train_case: bool
    source: str
    planted: str = ""
    missing: tuple[str, ...] = ()
    patient: str = ""
    spoilt: str = ""
    other_label: str | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the case has a reference label map."""
        return self.role != "new"

    @property
    def sources(self) -> tuple[str, ...]:
        """All files that the case should have."""
        return (*self.images, self.label) if self.label else self.images

    @property
    def existing_sources(self) -> tuple[str, ...]:
        """The files that the case has, by the listing at load time, and what else its
        import reads."""
        own = tuple(path for path in self.sources if path not in self.missing)
        return (*own, self.other_label) if self.other_label else own

    def as_record(self) -> dict[str, Any]:
        """The case as plain JSON values."""
        record = asdict(self)
        return {**record, "images": list(self.images), "missing": list(self.missing)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Case":
        """The inverse of `as_record`."""
        images, missing = tuple(record["images"]), tuple(record["missing"])
        return cls(**{**record, "images": images, "missing": missing})


@dataclass(frozen=True)
class Cohort:
    """The selected cases, and what their channels and labels mean.

    `labels` maps name to number, background included; the names can be parts of file
    names. `label_map` maps the numbers in the source files to those in `labels`, and
    to the ignored one. `targets` says what networks are trained on if it is something
    else than each label.
    """

    cases: tuple[Case, ...]
    channel_names: list[str]
    labels: dict[str, int]
    label_map: dict[int, int]
    problems: tuple[Problem, ...] = ()
    targets: Targets = LABELS_ALONE

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    def _ids(self, *roles: str) -> list[str]:
        return sorted(case.id for case in self.cases if case.role in roles)

    @property
    def pool(self) -> list[str]:
        """Ids of the cases that may be trained on, sorted."""
        return self._ids("pool")

    @property
    def train(self) -> list[str]:
        """Ids of the pool cases that get a model of their own, sorted."""
        return sorted(case.id for case in self.cases if case.train_case)

    @property
    def held_out(self) -> list[str]:
        """Ids of the cases that no model is trained on and that judge, sorted."""
        return self._ids("held_out")

    @property
    def calibration(self) -> list[str]:
        """Ids of the labelled cases that no model is trained on and that judge
        nothing, sorted: the similarity classifier is fitted to them."""
        return self._ids("calibration")

    @property
    def new(self) -> list[str]:
        """Ids of the cases without a label, sorted."""
        return self._ids("new")

    @property
    def test(self) -> list[str]:
        """Ids of the cases that matrix and comparison evaluate models on, sorted:
        pool and held-out. Calibration and new cases are for `adaptive` alone."""
        return self._ids("pool", "held_out")

    @property
    def labelled(self) -> list[str]:
        """Ids of all cases with a reference label map, sorted."""
        return self._ids("pool", "held_out", "calibration")

    @property
    def ids(self) -> list[str]:
        """Ids of all cases, sorted."""
        return self._ids(*ROLES)

    @property
    def roles(self) -> dict[str, list[str]]:
        """What `cohort.tsv` says of each case: role, whether it has a row, patient."""
        return {
            case.id: [case.role, str(case.train_case), case.patient]
            for case in self.cases
        }

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each case."""
        return {case.id: case.patient or case.id for case in self.cases}

    def scans_of_patients(self, cases: Iterable[str]) -> dict[str, str]:
        """Who is who among cases that share a patient with another of `cases`.

        Each is given the id of the patient's first case: patients may be called as
        cases of others are. Empty where each case is of a patient of its own.
        """
        scans: dict[str, list[str]] = {}
        for case in sorted(cases):
            scans.setdefault(self.patients[case], []).append(case)
        several = [group for group in scans.values() if len(group) > 1]
        return {case: group[0] for group in several for case in group}

    @property
    def has_planted_defects(self) -> bool:
        """Whether some train case is known to be wrong: a phantom, or spoilt here."""
        defects = catalogue.LABEL_DEFECTS + catalogue.IMAGE_DEFECTS
        return any(
            case.train_case
            and (case.planted in defects or spoil.is_defect(case.spoilt))
            for case in self.cases
        )

    @property
    def foreground_labels(self) -> list[str]:
        """Names of the labels without the background, by number."""
        return [name for name, number in self.labels.items() if number != 0]

    @cached_property
    def scored(self) -> dict[str, tuple[int, ...]]:
        """What has a Dice that goes into the mean, with its label numbers: each label,
        or each region that networks are trained on."""
        if self.targets.regions:
            return dict(self.targets.regions)
        return {name: (self.labels[name],) for name in self.foreground_labels}

    @property
    def dataset_labels(self) -> dict[str, int | list[int]]:
        """`labels` of nnU-Net's dataset.json."""
        declared: dict[str, int | list[int]] = dict(self.labels)
        if self.targets.regions:
            declared = {"background": 0}
            declared |= {
                name: numbers[0] if len(numbers) == 1 else list(numbers)
                for name, numbers in self.targets.regions.items()
            }
        if self.targets.ignore is not None:
            declared[IGNORE] = self.targets.ignore
        return declared

    def case(self, case_id: str) -> Case:
        """The case of that id; KeyError if it is not in the cohort."""
        return self._by_id[case_id]
