"""Which cases are scans of one patient, so that no two roles share a patient."""

import csv
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from casesim.errors import UserError

# Ids that name patient and scan by a public standard; the group is the patient.
KNOWN_IDS = (
    # BraTS 2023 and later: BraTS-GLI-00005-100 is patient 00005, time point 100.
    re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d{3}"),
    # Its radiotherapy set: BraTS-MEN-RT-0001-1
    re.compile(r"(BraTS-MEN-RT-\d+)-\d+"),
    # UPENN-GBM-00001_11, _21: before surgery, and later
    re.compile(r"(UPENN-GBM-\d+)_\d+"),
    # UCSF-PDGM-0429, and UCSF-PDGM-0429_FU003d later
    re.compile(r"(UCSF-PDGM-\d+)(?:_.*)?"),
    # BIDS: sub-01_ses-02
    re.compile(r"(sub-[A-Za-z0-9]+)(?:_.*)?"),
)
TABLE_ENDINGS = (".tsv", ".csv")


def find_patients(
    ids: Collection[str], patient: str | None, complete: bool = True
) -> dict[str, str]:
    """The patient of each case, by `cohort.patient`.

    Args:
        ids: of all cases of the data set, selected or not.
        patient: None recognises the ids of BraTS 2023 and later and of BIDS, and takes
            every other case for a patient of its own. A regular expression is looked
            for in each id: its group (the one called `patient`, or else the first), or
            all of the match, names the patient. A path that ends in .tsv or .csv is a
            table with the columns `case` and `patient`.
        complete: whether a case that expression or table say nothing of is an error;
            otherwise it is a patient of its own.

    Raises:
        UserError: an expression that is none, a table that cannot be read, or cases
            that they say nothing of.
    """
    if patient is None:
        return {case: _known_patient(case) for case in ids}
    if files := tables(patient):
        table = _read_table(Path(files[0]))
        if complete:
            _refuse_gaps(
                ids, table, f"The table cohort.patient {patient} lacks", "Add them"
            )
        return {case: table.get(case, case) for case in ids}
    try:
        expression = re.compile(patient)
    except re.error as error:
        raise UserError(
            f"cohort.patient {patient!r} is no regular expression ({error}), and no "
            f"table either (a path that ends in {' or '.join(TABLE_ENDINGS)})."
        ) from None
    names = {case: _name(match) for case in ids if (match := expression.search(case))}
    named = {case: name for case, name in names.items() if name}
    if complete:
        _refuse_gaps(
            ids,
            named,
            f"The regular expression cohort.patient {patient!r} finds no patient in",
            "Change it so that it matches every id",
        )
    return {case: named.get(case, case) for case in ids}


def tables(patient: str | None) -> list[str]:
    """The file that `cohort.patient` names, if it names one."""
    if patient is None or not patient.lower().endswith(TABLE_ENDINGS):
        return []
    return [str(Path(patient).expanduser())]


def _known_patient(case: str) -> str:
    for pattern in KNOWN_IDS:
        if match := pattern.fullmatch(case):
            return match[1]
    return case


def _name(match: re.Match[str]) -> str:
    if "patient" in match.re.groupindex:
        return match["patient"] or ""
    return (match[1] if match.re.groups else match[0]) or ""


def _refuse_gaps(
    ids: Iterable[str], found: Mapping[str, str], what: str, mend: str
) -> None:
    gaps = sorted(set(ids) - set(found))
    if gaps:
        shown = ", ".join(gaps[:5]) + (", …" if len(gaps) > 5 else "")
        raise UserError(
            f"{what} {len(gaps)} of {len(set(ids))} cases: {shown}. {mend}: a case of "
            "an unknown patient could be trained on and judged by at once."
        )


def _read_table(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"The table cohort.patient {path} cannot be read: {reason}."
        ) from None
    if not {"case", "patient"} <= set(columns):
        raise UserError(
            f"The table cohort.patient {path} must have the columns 'case' and "
            f"'patient'; it has {', '.join(columns) or 'none'}."
        )
    patients: dict[str, str] = {}
    for row in rows:
        case, name = (str(row[key] or "").strip() for key in ("case", "patient"))
        if not case or not name:
            continue
        if patients.setdefault(case, name) != name:
            raise UserError(
                f"The table cohort.patient {path} gives the case {case} two patients: "
                f"{patients[case]} and {name}."
            )
    return patients
