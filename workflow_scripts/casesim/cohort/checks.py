"""What is wrong with a cohort, in the user's words, before anything is trained.

Every check looks at the source files, so that what it says is about a file that the
user has and can mend. nnU-Net's own `verify_dataset_integrity` stops at the first
broken file; here one list holds everything.
"""

import csv
import gzip
import hashlib
import io
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from casesim.cohort.cohort import WHOLE_COHORT, Case, Cohort, Problem
from casesim.files import atomic_path

# Relative; nnU-Net's reader refuses channels whose spacings differ by more.
SPACING_TOLERANCE = 1e-5
# In voxels: further apart, a label map is visibly beside its image at some edge.
ORIGIN_TOLERANCE = 0.01
# In direction cosines: 0.0001 turns a corner 240 voxels away by 0.02 voxels.
DIRECTION_TOLERANCE = 1e-4

# Label maps with fewer voxels can be equal by chance.
TINY_LABEL_MAP = 10

_SAME_GRID = (
    "If the voxels do match, copy the header (label.CopyInformation(image) in "
    "SimpleITK); otherwise resample it onto the grid of the first channel."
)


@dataclass(frozen=True)
class Digest:
    """What is needed of a case to compare it with others.

    One digest for each channel that is not constant, by channel name; the digest of the
    label map and its number of labelled voxels; the spacing (x, y, z) in mm.
    """

    channels: dict[str, str]
    label: str
    label_voxels: int
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class _Volume:
    """The content of one NIfTI file; axes x, y, z (and channel)."""

    path: str
    voxels: NDArray[Any]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class _Channel:
    """One 3-D channel: where it comes from, in words, and its file."""

    name: str
    place: str
    voxels: NDArray[Any]
    volume: _Volume


class _UnreadableError(Exception):
    """A file that cannot be read: what is wrong, and how to mend it."""


class _Report:
    """The problems of one case."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.problems: list[Problem] = []

    def error(self, problem: str, how_to_fix: str) -> None:
        self.problems.append(Problem(self.case, "error", problem, how_to_fix))

    def warning(self, problem: str, how_to_fix: str) -> None:
        self.problems.append(Problem(self.case, "warning", problem, how_to_fix))


def check_cohort(cohort: Cohort, threads: int) -> list[Problem]:
    """Everything that is wrong with a cohort's selected cases, sorted by case.

    Cases are read `threads` at a time; unpacking, hashing and numpy's loops run beside
    each other in threads. Each needs memory for one case (some 400 MB for BraTS).
    """
    problems = list(cohort.problems)
    digests: dict[str, Digest] = {}
    with ThreadPoolExecutor(max(1, threads)) as executor:
        results = executor.map(lambda case: check_case(case, cohort), cohort.cases)
        for case, (found, digest) in zip(cohort.cases, results, strict=True):
            problems += found
            if digest:
                digests[case.id] = digest
    problems += _compare_cases(digests)
    return sorted(problems, key=lambda p: (p.case, p.severity, p.problem))


def check_case(case: Case, cohort: Cohort) -> tuple[list[Problem], Digest | None]:
    """Read all files of one case, and list what is wrong with them.

    The digest is None where a file is missing or unreadable, and for phantoms, which
    have no files yet and are right by construction.
    """
    report = _Report(case.id)
    if case.source == "phantom":
        return report.problems, None
    volumes = [_load(path, report) for path in case.sources]
    images, label = volumes[:-1], volumes[-1]
    channels = _channels(case, images, cohort.channel_names, report)
    complete = len(channels) == len(cohort.channel_names)
    _check_images(channels, complete, report)
    if label and label.voxels.ndim != 3:
        report.error(
            f"{label.path} has {label.voxels.ndim} dimensions {label.voxels.shape}.",
            "A label map must be 3-D: save it as one volume.",
        )
        label = None
    if label:
        _check_label(label, case, cohort, report)
    if channels:
        _check_grids(channels, label, report)
    if not (label and complete):
        return report.problems, None
    _check_brain(channels, label, report)
    return report.problems, _digest(channels, label)


def write_checks(problems: Iterable[Problem], path: str | os.PathLike[str]) -> None:
    """Write checks.tsv: case, severity, problem, how_to_fix; a bare header if none."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["case", "severity", "problem", "how_to_fix"])
        for found in problems:
            fields = (found.case, found.severity, found.problem, found.how_to_fix)
            writer.writerow([_plain(text) for text in fields])


def format_checks(problems: Sequence[Problem]) -> str:
    """The problems for a terminal, two lines for each, and how many there are."""
    lines = []
    for found in problems:
        case, problem = _plain(found.case), _plain(found.problem)
        lines.append(f"{found.severity.upper():7s} {case}: {problem}")
        lines.append(f"        -> {_plain(found.how_to_fix)}")
    count = Counter(found.severity for found in problems)
    cases = len({found.case for found in problems} - {WHOLE_COHORT})
    lines.append(
        f"{count['error']} errors and {count['warning']} warnings in {cases} cases."
        if problems
        else "No problem found."
    )
    if count["error"]:
        lines.append("Nothing is trained until the errors are mended.")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """One printable line, whatever is in a file name or in a library's message."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


# Reading


def _load(path: str, report: _Report) -> _Volume | None:
    try:
        return _read(path)
    except _UnreadableError as error:
        report.error(*error.args)
        return None


def _read(path: str) -> _Volume:
    if not Path(path).is_file():
        what = "is a link to nowhere" if Path(path).is_symlink() else "is missing"
        raise _UnreadableError(f"{path} {what}.", "Put the file there.")
    content = _unpack(path)
    if nib.Nifti1Image.header_class.may_contain_header(content):
        image_class: Any = nib.Nifti1Image
    elif nib.Nifti2Image.header_class.may_contain_header(content):
        image_class = nib.Nifti2Image
    else:
        raise _UnreadableError(
            f"{path} is not a NIfTI file.", "Convert it to NIfTI, or replace it."
        )
    try:
        image = image_class.from_stream(io.BytesIO(content))
        voxels = np.asanyarray(image.dataobj)
    # nibabel raises many kinds of errors over damaged headers.
    except Exception as error:
        raise _UnreadableError(
            f"{path} cannot be read, or holds fewer voxels than its header says: "
            f"{error}",
            "Copy or download the file again.",
        ) from None
    if voxels.dtype.kind not in "iufb":
        raise _UnreadableError(
            f"{path} holds voxels of type {voxels.dtype}, not numbers.",
            "Save it as a grey-value image (colour and complex images are not used).",
        )
    return _Volume(path, voxels, *_geometry(path))


def _unpack(path: str) -> bytes:
    """The uncompressed content. All of it: only the end shows that a file is whole."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise _UnreadableError(
            f"{path} cannot be opened: {error.strerror}.",
            "See to its permissions, or to the disk.",
        ) from None
    if not content:
        raise _UnreadableError(
            f"{path} is empty (0 bytes).", "Copy or download the file again."
        )
    if content.startswith((b"version https://git-lfs", b"/annex/objects")):
        raise _UnreadableError(
            f"{path} is a pointer to the image, not the image.",
            "Fetch the content (git lfs pull, or git annex get).",
        )
    if not path.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise _UnreadableError(
            f"{path} is cut off: a truncated gzip file ({len(content)} bytes).",
            "Copy or download the file again.",
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _UnreadableError(
            f"{path} is damaged, or no gzip file: {error}.",
            "Copy or download the file again (or name it .nii if it is not packed).",
        ) from None


def _geometry(path: str) -> tuple[tuple[float, ...], ...]:
    """Spacing, origin and direction in space as SimpleITK (so nnU-Net) sees them."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ")
        raise _UnreadableError(
            f"{path} is refused by SimpleITK, which nnU-Net reads with: {reason}",
            "Save it again with a rigid, right-angled orientation: in nibabel, "
            "image.set_sform(image.get_qform()).",
        ) from None
    # A fourth axis holds channels; a missing third one is a single slice.
    size = reader.GetDimension()
    direction = np.eye(max(3, size))
    direction[:size, :size] = np.reshape(reader.GetDirection(), (size, size))
    return (
        (*reader.GetSpacing(), 1.0)[:3],
        (*reader.GetOrigin(), 0.0)[:3],
        tuple(direction[:3, :3].ravel().tolist()),
    )


def _channels(
    case: Case,
    images: Sequence[_Volume | None],
    names: Sequence[str],
    report: _Report,
) -> list[_Channel]:
    """The 3-D channels that could be read; all of them, or what there is of them."""
    channels = []
    if case.source == "msd":
        volume = images[0]
        if volume is None:
            return []
        voxels = volume.voxels[..., None] if volume.voxels.ndim == 3 else volume.voxels
        if voxels.ndim != 4 or voxels.shape[3] != len(names):
            count = voxels.shape[3] if voxels.ndim == 4 else "no"
            report.error(
                f"Wrong channel count: {volume.path} has the shape "
                f"{volume.voxels.shape}, so {count} channels, but dataset.json names "
                f"{len(names)}: {', '.join(names)}.",
                "Put all channels into the image's fourth axis, or correct 'modality' "
                "in dataset.json.",
            )
            if voxels.ndim != 4:
                return []
        # What is there is checked all the same.
        for name, array in zip(names, np.moveaxis(voxels, 3, 0), strict=False):
            place = f"{volume.path} (channel {name})"
            channels.append(_Channel(name, place, array, volume))
        return channels
    for name, volume in zip(names, images, strict=False):
        if volume is None:
            continue
        if volume.voxels.ndim != 3:
            report.error(
                f"Wrong channel count: {volume.path} has the shape "
                f"{volume.voxels.shape}, but should be one 3-D channel ({name}).",
                "Save each channel as a 3-D file of its own.",
            )
            continue
        place = f"{volume.path} ({name})"
        channels.append(_Channel(name, place, volume.voxels, volume))
    return channels


# One case


def _check_images(
    channels: Sequence[_Channel], complete: bool, report: _Report
) -> None:
    for channel in channels:
        _check_finite(channel.place, channel.voxels, report)
    constant = [c for c in channels if _is_constant(c.voxels)]
    if complete and len(constant) == len(channels):
        files = ", ".join(dict.fromkeys(c.volume.path for c in channels))
        report.error(
            f"No brain voxels: every channel is constant in {files}.",
            "Export the images again: there is nothing in them.",
        )
        return
    for channel in constant:
        report.warning(
            f"{channel.place} is constant: it has the value "
            f"{channel.voxels.flat[0]:g} everywhere.",
            "Replace the channel if it should hold an image.",
        )


def _is_constant(voxels: NDArray[Any]) -> bool:
    return voxels.size == 0 or bool(voxels.min() == voxels.max())


def _check_finite(place: str, voxels: NDArray[Any], report: _Report) -> None:
    if voxels.dtype.kind != "f":
        return
    strange = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
    if strange:
        report.error(
            f"{place} has {strange} NaN or infinite voxels.",
            "Replace them, by 0 outside the brain, or export the image again.",
        )


def _check_label(label: _Volume, case: Case, cohort: Cohort, report: _Report) -> None:
    _check_finite(label.path, label.voxels, report)
    finite = label.voxels[np.isfinite(label.voxels)]
    values, counts = np.unique(finite, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    fractions = [value for value in found if value != int(value)]
    if fractions:
        shown = ", ".join(f"{value:g}" for value in fractions[:5])
        report.error(
            f"{label.path} has {len(fractions)} label values that are no integers: "
            f"{shown}{', …' if len(fractions) > 5 else ''}.",
            "Interpolation does this: resample label maps with nearest neighbour.",
        )
    whole = {int(value): n for value, n in found.items() if value == int(value)}
    strange = {v: n for v, n in whole.items() if v not in cohort.label_map}
    if strange:
        shown = ", ".join(f"{v} ({n} voxels)" for v, n in list(strange.items())[:10])
        declared = ", ".join(map(str, sorted(cohort.label_map)))
        report.error(
            f"{label.path} has label values outside the declared ones ({declared}): "
            f"{shown}.",
            _declare_labels(case, set(whole)),
        )
    if set(found) == {0}:
        report.error(
            f"{label.path} is an empty label map: all background.",
            "Take the case out, or draw its lesion: as a pool case it teaches a model "
            "to find nothing, and as a held-out case it has no Dice.",
        )


def _declare_labels(case: Case, found: set[int]) -> str:
    if case.source != "brats":
        return "Correct the label map, or declare the label in dataset.json."
    core = "{edema: [2], non-enhancing_tumor: [1], enhancing_tumour: "
    if 3 in found:
        cavity = "[3], resection_cavity: [4]}" if 4 in found else "[3]}"
        return (
            "From BraTS 2023 on the enhancing tumour is 3 (and in 2024 a resection "
            f"cavity 4): set cohort.brats.labels: {core}{cavity}"
        )
    if 4 in found:
        return (
            "Up to BraTS 2022 the enhancing tumour is 4: set cohort.brats.labels: "
            f"{core}[4]}}"
        )
    return "Correct the label map, or give the label a name in cohort.brats.labels."


def _check_grids(
    channels: Sequence[_Channel], label: _Volume | None, report: _Report
) -> None:
    """Compare shape and place in space of all files with those of the first channel."""
    first = channels[0].volume
    others = dict.fromkeys(c.volume.path for c in channels[1:])
    volumes = {c.volume.path: c.volume for c in channels}
    compared = [volumes[path] for path in others if path != first.path]
    for volume in [*compared, *([label] if label else [])]:
        differences = _grid_differences(first, volume)
        if differences:
            report.error(
                f"{volume.path} does not lie on the grid of {first.path}: "
                f"{'; '.join(differences)}.",
                _SAME_GRID,
            )


def _grid_differences(first: _Volume, other: _Volume) -> list[str]:
    differences = []

    def differ(what: str, a: Sequence[float], b: Sequence[float]) -> None:
        numbers = [" ".join(f"{value:.6g}" for value in values) for values in (a, b)]
        differences.append(f"{what} {numbers[1]} instead of {numbers[0]}")

    if first.voxels.shape[:3] != other.voxels.shape[:3]:
        differ("shape", first.voxels.shape[:3], other.voxels.shape[:3])
    if not np.allclose(first.spacing, other.spacing, SPACING_TOLERANCE, 0):
        differ("spacing (mm)", first.spacing, other.spacing)
    tolerance = ORIGIN_TOLERANCE * min(first.spacing)
    if not np.allclose(first.origin, other.origin, 0, tolerance):
        differ("origin (mm)", first.origin, other.origin)
    if not np.allclose(first.direction, other.direction, 0, DIRECTION_TOLERANCE):
        differ("direction", first.direction, other.direction)
    return differences


def _check_brain(channels: Sequence[_Channel], label: _Volume, report: _Report) -> None:
    """Labels where all channels are 0, and channels that are copies of each other."""
    if any(channel.voxels.shape != label.voxels.shape for channel in channels):
        return
    outside = label.voxels != 0
    for channel in channels:
        outside &= channel.voxels == 0
    count = int(np.count_nonzero(outside))
    if count and any(np.any(channel.voxels) for channel in channels):
        report.warning(
            f"{label.path} labels {count} voxels outside the brain (all channels 0).",
            "Look whether the label map belongs to this image, and is not shifted.",
        )


def _digest(channels: Sequence[_Channel], label: _Volume) -> Digest:
    varying = [c for c in channels if not _is_constant(c.voxels)]
    return Digest(
        {c.name: _hash(c.voxels, np.float32) for c in varying},
        _hash(label.voxels, np.uint8),
        int(np.count_nonzero(label.voxels)),
        channels[0].volume.spacing,
    )


def _hash(voxels: NDArray[Any], dtype: type) -> str:
    """A hash of shape and values, whatever type they are stored as."""
    with np.errstate(invalid="ignore", over="ignore"):
        values: NDArray[Any] = np.asfortranarray(voxels, dtype=dtype)
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(values.T.data)
    return digest.hexdigest()


# Cases against each other


def _compare_cases(digests: dict[str, Digest]) -> list[Problem]:
    return [
        *_duplicate_images(digests),
        *_duplicate_labels(digests),
        *_mixed_spacings(digests),
    ]


def _duplicate_images(digests: dict[str, Digest]) -> list[Problem]:
    """The same channel under two ids (error), or twice in one case (warning)."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case, digest in digests.items():
        for name, channel in digest.channels.items():
            places[channel].append((case, name))
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    problems = []
    for same in places.values():
        cases = tuple(sorted({case for case, _ in same}))
        if len(cases) > 1:
            shared[cases].append(same[0][1])
        elif len(same) > 1:
            copies = ", ".join(name for _, name in same)
            problems.append(
                Problem(
                    cases[0],
                    "warning",
                    f"The channels {copies} are the same, voxel by voxel.",
                    "Replace the one that is a copy.",
                )
            )
    for cases, names in shared.items():
        problems.append(
            Problem(
                cases[0],
                "error",
                f"Duplicate images: {' and '.join(cases)} have the same voxels in "
                f"{', '.join(names)}.",
                "Keep one of the cases, or replace the file that is a copy: a case "
                "that is there twice would be trained on and judged by itself.",
            )
        )
    return problems


def _duplicate_labels(digests: dict[str, Digest]) -> list[Problem]:
    same: dict[str, list[str]] = defaultdict(list)
    for case, digest in digests.items():
        if digest.label_voxels >= TINY_LABEL_MAP:
            same[digest.label].append(case)
    return [
        Problem(
            min(cases),
            "warning",
            f"{' and '.join(sorted(cases))} have the same label map.",
            "Look which of the images it belongs to.",
        )
        for cases in same.values()
        if len(cases) > 1
    ]


def _mixed_spacings(digests: dict[str, Digest]) -> list[Problem]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case, digest in digests.items():
        groups[" x ".join(f"{mm:.3g}" for mm in digest.spacing)].append(case)
    if len(groups) < 2:
        return []
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    shown = "; ".join(
        f"{spacing} mm in {len(cases)} ({', '.join(sorted(cases)[:3])}"
        f"{', …' if len(cases) > 3 else ''})"
        for spacing, cases in ordered[:10]
    )
    return [
        Problem(
            WHOLE_COHORT,
            "warning",
            f"The cases have {len(groups)} different spacings: {shown}.",
            "Nothing to do: nnU-Net resamples them to one. But cases may look alike "
            "only for their scanner.",
        )
    ]
