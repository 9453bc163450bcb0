"""The synthetic cohort: virtual glioma patients, some with a planted defect.

Each virtual patient is a skull-stripped head (folded grey-matter ribbon, white
matter, ventricles, deep grey nuclei, cerebellum, brainstem) with a lesion (oedema
that prefers white matter, enhancing rim that is broken in places, necrotic and
non-enhancing core) whose mass pushes its surroundings away. FLAIR, T1w, T1gd and
T2w follow from tissue parameters by the signal equations of the sequences, and then
pass through a scanner: its protocol, resolution, gain, intensity non-uniformity and
Rician noise.

The recipe follows BrainWeb (noise and non-uniformity levels; Collins et al. 1998),
TumorSim (Prastawa et al., Med. Image Anal. 13:297-311, 2009: mass effect, contrast
uptake) and SynthSeg (Billot et al., Med. Image Anal. 86:102789, 2023: images from
label maps).

Arrays are (z, y, x), images (channel, z, y, x). Index z grows upwards, y backwards
and x to the patient's left, which is what SimpleITK takes an identity direction for.
Anatomy and lesion are described in millimetres of a standard head; a grid smaller
than that head holds a smaller (and, when it has few slices, flatter) one.

Only the standard library is imported with this module: case names and planted
defects are needed while Snakemake reads its rules.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

CHANNEL_NAMES = ("FLAIR", "T1w", "T1gd", "T2w")
LABELS = {
    "background": 0,
    "edema": 1,
    "non-enhancing_tumor": 2,
    "enhancing_tumour": 3,
}

LABEL_DEFECTS = (
    "swapped_labels",
    "shifted_label",
    "other_patient",
    "over_segmentation",
    "missed_lesion",
)
"""The image is right, the label map is not."""

IMAGE_DEFECTS = ("corrupted_channel",)
"""The label map is right, one channel of the image is not."""

CONTROLS = (
    "no_enhancement",
    "multifocal",
    "infratentorial",
    "small_lesion",
    "odd_scanner",
)
"""Unusual, but image and label map are right: not to be called bad."""

# Semi-axes (z, y, x) of the standard head, in mm.
_HEAD = (62.0, 86.0, 69.0)
# Sub-voxels are at most this wide (mm) as long as that takes no more than
# _MAX_SUBDIVISION of them per axis: partial volume, at a bearable price.
_SUBVOXEL = 1.6
_MAX_SUBDIVISION = 4
# A label with fewer voxels than this is not worth learning: the lesion grows.
_MIN_LABEL_VOXELS = 8
_DEFAULT_SHAPE = (28, 56, 56)
_DEFAULT_SPACING = (3.0, 3.0, 3.0)
_DEFAULT_SCANNERS = 3

# Added distance (mm) where oedema cannot go.
_IMPASSABLE = 40.0

_SHIFT_MM = 24.0
_DILATION_WHOLE_MM = 12.0
_DILATION_CORE_MM = 6.0
_MISSED_SHARE_KEPT = 0.02


@dataclass(frozen=True)
class Tissue:
    """MR parameters at 1.5 T: T1 and T2 in ms, proton density relative to water,
    change of the relaxation rate 1/T1 by gadolinium (``uptake``) in 1/s."""

    t1: float
    t2: float
    density: float
    uptake: float


# Healthy tissue: BrainWeb. Tumour: plausible values within the range of MR
# fingerprinting studies. Order matters: the position is the number in tissue maps.
TISSUES: dict[str, Tissue] = {
    "air": Tissue(1000.0, 100.0, 0.0, 0.0),
    "csf": Tissue(2569.0, 329.0, 1.00, 0.00),
    "grey_matter": Tissue(833.0, 83.0, 0.86, 0.05),
    "white_matter": Tissue(500.0, 70.0, 0.77, 0.03),
    "deep_grey_matter": Tissue(740.0, 78.0, 0.84, 0.05),
    "vessel": Tissue(1300.0, 60.0, 0.50, 3.00),
    "choroid_plexus": Tissue(1300.0, 160.0, 0.92, 1.60),
    "oedema": Tissue(1100.0, 150.0, 0.90, 0.05),
    "non_enhancing": Tissue(1250.0, 130.0, 0.88, 0.10),
    "necrosis": Tissue(2000.0, 260.0, 0.95, 0.03),
    "enhancing": Tissue(1150.0, 105.0, 0.88, 1.40),
}
_NUMBER = {name: number for number, name in enumerate(TISSUES)}


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


@dataclass(frozen=True)
class _Focus:
    """One tumour: centre (z, y, x), radius and extent of the oedema beyond it, in
    mm of the standard head; axis ratios (z, y, x), turned in plane by ``angle``."""

    centre: tuple[float, float, float]
    radius: float
    oedema: float
    stretch: tuple[float, float, float]
    angle: float


@dataclass(frozen=True)
class _Lesion:
    foci: tuple[_Focus, ...]
    rim: float  # mean thickness of the enhancing rim in mm, 0 for none
    necrosis: float  # share of the radius that is necrotic
    mass_effect: float  # displacement at the tumour's margin over its radius


def case_ids(number: int) -> list[str]:
    """Names of the first ``number`` virtual patients: ``phantom_001``, ..."""
    return [f"phantom_{index:03d}" for index in range(1, number + 1)]


def assignments(
    phantom_config: Mapping[str, Any], train_cases: Iterable[str], seed: int
) -> dict[str, str]:
    """Which train case gets which planted defect or control.

    Args:
        phantom_config: ``cohort.phantom``; ``defects`` and ``controls`` map names to
            numbers of cases.
        train_cases: ids of the train cases, in any order.
        seed: ``cohort.seed``.

    Returns:
        Case id to name, for the cases that have one; one name per case. The same
        whatever the order of ``train_cases``.

    Raises:
        UserError: an unknown name, a negative number, or more planted cases than
            train cases.
    """
    known = {"defects": LABEL_DEFECTS + IMAGE_DEFECTS, "controls": CONTROLS}
    wanted: list[str] = []
    for kind, names in known.items():
        numbers = phantom_config.get(kind) or {}
        if unknown := sorted(set(numbers) - set(names)):
            raise UserError(
                f"cohort.phantom.{kind} in the config names {', '.join(unknown)}, "
                f"which does not exist. Choose from: {', '.join(names)}."
            )
        for name in names:
            number = int(numbers.get(name, 0))
            if number < 0:
                raise UserError(
                    f"cohort.phantom.{kind}.{name} in the config is {number}; "
                    "give the number of cases, 0 or more."
                )
            wanted += [name] * number
    cases = sorted(set(train_cases))
    if len(wanted) > len(cases):
        raise UserError(
            f"cohort.phantom in the config plants {len(wanted)} defects and controls, "
            f"but there are only {len(cases)} train cases. Lower the numbers under "
            "defects and controls, or raise cohort.train_cases."
        )
    cases.sort(key=lambda case: _digest(seed, case, "planted"))
    return dict(zip(cases, wanted, strict=False))


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
    shape, spacing = _grid(phantom_config)
    scanner, protocol = _scanner(case_id, phantom_config, planted, seed)
    lesion = _draw_lesion(case_id, planted, seed)
    fractions, truth = _anatomy(case_id, lesion, shape, spacing, seed)
    image = _acquire(case_id, fractions, protocol, spacing, seed)
    label = truth.copy()
    if planted in LABEL_DEFECTS:
        brain = fractions[_NUMBER["air"]] < 0.5
        label = _spoil_label(case_id, planted, truth, brain, spacing, seed)
    elif planted in IMAGE_DEFECTS:
        image = _corrupt_channel(case_id, image, seed)
    return Phantom(image, label, truth, spacing, scanner)


# --------------------------------------------------------------- signal equations


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
    import numpy as np

    real = signal + generator.normal(0, sigma, signal.shape)
    return np.hypot(real, generator.normal(0, sigma, signal.shape))


# -------------------------------------------------------------------- randomness


def _digest(seed: int, case_id: str, stream: str) -> bytes:
    return hashlib.sha256(f"{seed}/{stream}/{case_id}".encode()).digest()


def _generator(seed: int, case_id: str, stream: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that none disturbs another."""
    import numpy as np

    return np.random.default_rng(
        int.from_bytes(_digest(seed, case_id, stream)[:16], "big")
    )


def _smooth_noise(
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
    import numpy as np

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


# ----------------------------------------------------------------------- scanner


def _scanner(
    case_id: str, config: Mapping[str, Any], planted: str, seed: int
) -> tuple[int, Protocol]:
    """The scanner a case comes from, and its protocol with that day's gain."""
    import numpy as np

    visit = _generator(seed, case_id, "scanner")
    number = int(visit.integers(int(config.get("scanners", _DEFAULT_SCANNERS))))
    drift = visit.uniform(0.9, 1.1, len(CHANNEL_NAMES))
    draw = _generator(seed, f"scanner {number}", "protocol")
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


def _acquire(
    case_id: str,
    fractions: Floats,
    protocol: Protocol,
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.float32]:
    """Image (channel, z, y, x) of tissue fractions (tissue, z, y, x)."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    draw = _generator(seed, case_id, "tissue")
    noise = _generator(seed, case_id, "noise")
    patient = _patient_tissues(draw)
    table = np.array([signals(tissue, protocol) for tissue in patient])
    shape = fractions.shape[1:]
    axes = [_axis(n, width) for n, width in zip(shape, spacing, strict=True)]
    brain = fractions[_NUMBER["air"]] < 0.5

    # Texture: tissue is not uniform, and what makes it so shows on all channels.
    lesion = fractions[_NUMBER["oedema"] :].sum(axis=0)
    strength = 0.025 + 0.05 * lesion
    common = _texture(noise, shape, 0.8)
    patches = _smooth_noise(noise, axes, 7.0) * lesion
    image = np.empty((len(CHANNEL_NAMES), *shape), np.float32)
    for channel, name in enumerate(CHANNEL_NAMES):
        signal = np.tensordot(table[:, channel], fractions, axes=1)
        own = _texture(noise, shape, 0.6)
        # water darkens T1w where it brightens the others
        sign = -0.5 if name in ("T1w", "T1gd") else 1.0
        signal *= 1 + strength * (0.7 * common + 0.7 * own) + 0.08 * sign * patches
        signal *= _bias_field(noise, axes, brain, protocol.non_uniformity)
        signal = gaussian_filter(np.maximum(signal, 0), protocol.blur)
        reference = "csf" if name == "T2w" else "white_matter"
        sigma = protocol.noise * table[_NUMBER[reference], channel]
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


def _texture(draw: np.random.Generator, shape: Sequence[int], width: float) -> Floats:
    """White noise smoothed over ``width`` voxels, mean 0 and variance 1."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    texture = gaussian_filter(
        draw.standard_normal(shape).astype(np.float32), width, mode="wrap"
    )
    return (texture - texture.mean()) / texture.std()


def _bias_field(
    draw: np.random.Generator,
    axes: Sequence[Floats],
    brain: NDArray[np.bool_],
    non_uniformity: float,
) -> Floats:
    """Smooth factor that spans 1 - x/2 to 1 + x/2 over the brain (BrainWeb INU)."""
    field = _smooth_noise(draw, axes, 55.0)
    low, high = field[brain].min(), field[brain].max()
    return 1 + non_uniformity * ((field - low) / (high - low) - 0.5)


# ------------------------------------------------------------------------ lesion


def _draw_lesion(case_id: str, planted: str, seed: int) -> _Lesion:
    """Position, size and make-up of the lesion: medians and spread of the whole
    tumour as in MSD Task01 (oedema 54, core 12, rim 15 mL in an adult head)."""
    draw = _generator(seed, case_id, "lesion")
    focus = _draw_focus(draw)
    lesion = _Lesion(
        foci=(focus,),
        rim=draw.uniform(5.5, 7.5),
        necrosis=draw.uniform(0.45, 0.7),
        mass_effect=draw.uniform(0.15, 0.4),
    )
    control = _generator(seed, case_id, "control")
    if planted == "no_enhancement":
        return replace(lesion, rim=0.0, necrosis=0.2)
    if planted == "small_lesion":
        small = replace(focus, radius=control.uniform(8.5, 10.5), oedema=5.0)
        return replace(lesion, foci=(small,), rim=3.5)
    if planted == "infratentorial":
        side = float(control.choice([-1.0, 1.0]))
        centre = (-40.0, control.uniform(44, 52), side * control.uniform(16, 26))
        low = replace(focus, centre=centre, radius=control.uniform(12, 15), oedema=9.0)
        return replace(lesion, foci=(low,), rim=3.5, mass_effect=0.15)
    if planted == "multifocal":
        foci = [replace(focus, radius=max(0.75 * focus.radius, 10.0))]
        while len(foci) < 2:
            other = _draw_focus(control)
            other = replace(
                other,
                radius=control.uniform(8, 11),
                oedema=control.uniform(5, 9),
            )
            gaps = [
                math.dist(other.centre, one.centre) - other.radius - one.radius
                for one in foci
            ]
            if min(gaps) > 20:
                foci.append(other)
        return replace(lesion, foci=tuple(foci))
    return lesion


def _draw_focus(draw: np.random.Generator) -> _Focus:
    """A tumour in the deep white matter of a cerebral hemisphere."""
    while True:
        z = draw.uniform(-8, 34)
        y = draw.uniform(-52, 52)
        x = draw.uniform(20, 46)
        if 0.38 < _head_radius(z, y, x) < 0.66:
            break
    radius = 19.5 * math.exp(0.18 * float(draw.standard_normal()))
    radius = min(max(radius, 16.0), 24.0)
    return _Focus(
        centre=(z, y, x * float(draw.choice([-1.0, 1.0]))),
        radius=radius,
        oedema=draw.uniform(0.45, 0.95) * radius,
        stretch=(draw.uniform(0.85, 1.15), draw.uniform(0.85, 1.35), 1.0),
        angle=draw.uniform(0, math.pi),
    )


def _head_radius(z: Any, y: Any, x: Any) -> Any:
    """0 in the centre of the cerebrum, 1 on its surface; coordinates in mm of the
    standard head (numbers or arrays)."""
    import numpy as np

    # flatter below than above, wider behind than in front
    upright = z * np.where(z > 0, np.float32(1), np.float32(1 / 0.72)) / _HEAD[0]
    width = _HEAD[2] * (1 + 0.07 * y / _HEAD[1])
    return np.sqrt(upright**2 + (y / _HEAD[1]) ** 2 + (x / width) ** 2)


# ----------------------------------------------------------------------- anatomy


def _grid(
    config: Mapping[str, Any],
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    z, y, x = (int(n) for n in config.get("shape", _DEFAULT_SHAPE))
    depth, height, width = (float(w) for w in config.get("spacing", _DEFAULT_SPACING))
    return (z, y, x), (depth, height, width)


def _axis(size: int, width: float) -> Floats:
    """Positions of voxel centres in mm, 0 in the middle of the volume."""
    import numpy as np

    return ((np.arange(size) - (size - 1) / 2) * width).astype(np.float32)


def _anatomy(
    case_id: str,
    lesion: _Lesion,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Fractions (tissue, z, y, x) of each voxel, and the label map (z, y, x).

    A lesion that is too small for the grid to show all its labels grows until it is
    large enough.
    """
    wanted = (1, 2, 3) if lesion.rim else (1, 2)
    for _ in range(12):
        fractions = _fractions(case_id, lesion, shape, spacing, seed)
        label = _label_map(fractions)
        if all((label == value).sum() >= _MIN_LABEL_VOXELS for value in wanted):
            return fractions, label
        foci = [
            replace(one, radius=1.12 * one.radius, oedema=1.12 * one.oedema)
            for one in lesion.foci
        ]
        lesion = replace(lesion, foci=tuple(foci), rim=1.12 * lesion.rim)
    raise UserError(
        f"A phantom of {shape} voxels of {spacing} mm (z, y, x) is too coarse to show "
        "a lesion. Raise cohort.phantom.shape in the config; the default is "
        f"{_DEFAULT_SHAPE} voxels of {_DEFAULT_SPACING} mm."
    )


def _label_map(fractions: Floats) -> NDArray[np.uint8]:
    """The tumour label with the largest fraction, where the tumour has the most."""
    import numpy as np

    parts = np.stack(
        [
            fractions[_NUMBER["oedema"]],
            fractions[_NUMBER["non_enhancing"]] + fractions[_NUMBER["necrosis"]],
            fractions[_NUMBER["enhancing"]],
        ]
    )
    label = np.where(parts.sum(axis=0) > 0.5, parts.argmax(axis=0) + 1, 0)
    return label.astype(np.uint8)


def _fractions(
    case_id: str,
    lesion: _Lesion,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.float32]:
    """Tissue fractions of each voxel: one tissue per sub-voxel, averaged."""
    import numpy as np

    parts = [min(max(math.ceil(w / _SUBVOXEL), 1), _MAX_SUBDIVISION) for w in spacing]
    draw = _generator(seed, case_id, "anatomy")
    # the head leaves a narrow margin in the volume, and is never larger than life
    size = draw.uniform(0.92, 1.0, 3)
    plane = min(0.48 * shape[axis] * spacing[axis] / _HEAD[axis] for axis in (1, 2))
    height = 0.49 * shape[0] * spacing[0] / _HEAD[0]
    limits = [min(height, plane, 1.0), min(plane, 1.0), min(plane, 1.0)]
    scale = [float(part * limit) for part, limit in zip(size, limits, strict=True)]
    axes = [
        _axis(n * k, w / k) / s
        for n, k, w, s in zip(shape, parts, spacing, scale, strict=True)
    ]
    tissue = _tissue_map(axes, draw, lesion)

    count = len(TISSUES)
    coarse = np.arange(math.prod(shape)).reshape(shape)
    for axis, k in enumerate(parts):
        coarse = coarse.repeat(k, axis=axis)
    votes = np.bincount(
        coarse.ravel() * count + tissue.ravel(), minlength=math.prod(shape) * count
    )
    fractions = votes.reshape(*shape, count) / math.prod(parts)
    return np.ascontiguousarray(np.moveaxis(fractions, -1, 0), dtype=np.float32)


def _tissue_map(
    axes: Sequence[Floats], draw: np.random.Generator, lesion: _Lesion
) -> NDArray[np.uint8]:
    """Tissue number at each point of a regular grid.

    Args:
        axes: coordinates along z, y and x in mm of the standard head, 0 in its
            middle.
        draw: source of what differs between heads.
        lesion: what grows in it.
    """
    import numpy as np
    from scipy import ndimage

    ventricle_size = draw.uniform(0.75, 1.35)
    yaw, roll = draw.uniform(-0.08, 0.08, 2).tolist()
    grid = np.meshgrid(*axes, indexing="ij")
    near = _around_head(*grid)
    # from here on only points near the head, one after the other

    def noise(width: float) -> Floats:
        return _smooth_noise(draw, axes, width)[near]

    warp = [draw.uniform(1.5, 2.5) * noise(26.0) for _ in range(3)]
    folds = _Folds(draw)
    lumps = 0.14 * noise(9.0) + 0.06 * noise(4.5)
    rim_noise, necrosis_noise = noise(7.0), noise(6.0)

    z, y, x = (coordinate[near] for coordinate in grid)
    tumour = _grow(z, y, x, lesion, lumps)

    # each point shows the anatomy that the mass has pushed there
    freedom = ((1 - _head_radius(z, y, x)) / 0.25).clip(0, 1)
    home = _push_back(z, y, x, lesion, freedom)
    z, y, x = (point + shift for point, shift in zip(home, warp, strict=True))
    y, x = y + yaw * x, x - yaw * y
    z, x = z + roll * x, x - roll * z
    tissue, cortex, cerebellum = _healthy(z, y, x, ventricle_size, folds)

    # Oedema follows white matter: what keeps it away counts as extra distance.
    white = tissue == _NUMBER["white_matter"]
    deep = tissue == _NUMBER["deep_grey_matter"]
    barrier = 7 * (1 - cortex / 5).clip(0, 1) + 7 * deep
    margin, oedema = (np.full(z.shape, np.inf, np.float32) for _ in range(2))
    for focus, distance in zip(lesion.foci, tumour.margins, strict=True):
        # nothing crosses the tentorium, nor the midline except through the corpus
        # callosum
        below = focus.centre[0] < -25
        stop = np.where(cerebellum == below, np.float32(0), _IMPASSABLE)
        crossed = -math.copysign(1.0, focus.centre[2]) * x
        callosum = np.where(np.abs(z - 14) < 12, crossed, _IMPASSABLE)
        stop += np.where(crossed > 0, callosum, np.float32(0))
        margin = np.minimum(margin, distance + stop)
        oedema = np.minimum(oedema, distance + stop + barrier - focus.oedema)
    solid = white | deep | (tissue == _NUMBER["grey_matter"])
    inside = (margin < 0) & (tissue != _NUMBER["air"])
    swollen = solid & (oedema < 0)
    # no islands of oedema
    lesion_grid = np.zeros(near.shape, bool)
    lesion_grid[near] = swollen | inside
    connected = ndimage.label(lesion_grid)[0][near]
    swollen &= np.isin(connected, np.unique(connected[inside]))
    tissue[swollen] = _NUMBER["oedema"]
    tissue[inside] = _NUMBER["non_enhancing"]
    necrotic = tumour.ratio < lesion.necrosis * (1 + 0.2 * necrosis_noise)
    tissue[inside & necrotic] = _NUMBER["necrosis"]
    # the noise breaks the rim where it falls below -1.2
    thickness = lesion.rim * (0.9 + 0.75 * rim_noise).clip(0, 1.4)
    tissue[inside & (margin > -thickness)] = _NUMBER["enhancing"]
    tissue_grid = np.full(near.shape, _NUMBER["air"], np.uint8)
    tissue_grid[near] = tissue
    return tissue_grid


def _around_head(z: Floats, y: Floats, x: Floats) -> NDArray[np.bool_]:
    """Points that may belong to a head, however warped: the rest is skipped."""
    import numpy as np

    height = np.where(z > 0, np.float32(1 / 72), np.float32(1 / 56))
    cerebrum = (z * height) ** 2 + (y / 97) ** 2 + (x / 80) ** 2
    hindbrain = ((z + 38) / 36) ** 2 + ((y - 38) / 56) ** 2 + (x / 60) ** 2
    return (cerebrum < 1) | (hindbrain < 1)


@dataclass(frozen=True)
class _Growth:
    """``margins``: distance in mm from the margin of each focus, negative inside, if
    nothing stopped it; ``ratio``: 0 in a focus' middle, 1 at its margin."""

    margins: list[Floats]
    ratio: Floats


def _grow(z: Floats, y: Floats, x: Floats, lesion: _Lesion, lumps: Floats) -> _Growth:
    """Where the foci of a lesion reach; ``lumps`` roughen their ellipsoids."""
    import numpy as np

    margins, ratios = [], []
    for focus in lesion.foci:
        dz, dy, dx = (
            at - middle for at, middle in zip((z, y, x), focus.centre, strict=True)
        )
        cos, sin = math.cos(focus.angle), math.sin(focus.angle)
        along, across = cos * dy + sin * dx, cos * dx - sin * dy
        radius = np.sqrt(
            (dz / focus.stretch[0]) ** 2
            + (along / focus.stretch[1]) ** 2
            + (across / focus.stretch[2]) ** 2
        ) * (1 + lumps)
        margins.append(radius - focus.radius)
        ratios.append(radius / focus.radius)
    return _Growth(margins, np.minimum.reduce(ratios))


def _push_back(
    z: Floats, y: Floats, x: Floats, lesion: _Lesion, freedom: Floats
) -> tuple[Floats, Floats, Floats]:
    """Where points lay before the mass pushed them away.

    The push is largest at a tumour's margin and falls off over 30 mm; ``freedom``
    (0 to 1) holds the surface of the brain, inside the skull, in its place.
    """
    import numpy as np

    home = [z, y, x]
    for focus in lesion.foci:
        offset = [at - c for at, c in zip((z, y, x), focus.centre, strict=True)]
        distance = np.sqrt(sum(part**2 for part in offset)) + 1e-3
        fall = np.exp(-np.maximum(distance - focus.radius, 0) / 30)
        inner = np.minimum(distance / focus.radius, 1)
        push = lesion.mass_effect * focus.radius * fall * inner * freedom / distance
        home = [at - push * part for at, part in zip(home, offset, strict=True)]
    return home[0], home[1], home[2]


class _Folds:
    """Sulci: sheets that run inwards from the surface of the brain, where a random
    field on that surface crosses zero."""

    _step = 2.5  # mm between nodes
    _reach = 100.0  # mm from the middle of the head to the edge of the field

    def __init__(self, draw: np.random.Generator) -> None:
        import numpy as np
        from scipy.ndimage import gaussian_filter

        size = int(2 * self._reach / self._step) + 1
        white = draw.standard_normal((size, size, size)).astype(np.float32)
        # a band of wavelengths: gyri of about 15 mm
        band = gaussian_filter(white, 1.7, truncate=3)
        self._field = band - gaussian_filter(band, 2.2, truncate=2)
        slopes = np.gradient(self._field, self._step)
        self._slope = np.sqrt(sum(slope**2 for slope in slopes))

    def distance(self, points: Floats) -> Floats:
        """Distance in mm from the nearest sheet, for points (3, n) on the surface."""
        import numpy as np
        from scipy.ndimage import map_coordinates

        nodes = (points + self._reach) / self._step
        value = map_coordinates(self._field, nodes, order=1, mode="nearest")
        slope = map_coordinates(self._slope, nodes, order=1, mode="nearest")
        floor = 0.3 * float(self._slope.mean())
        return np.abs(value) / np.maximum(slope, floor)


def _ellipsoid(
    z: Floats,
    y: Floats,
    x: Floats,
    centre: Sequence[float],
    semi_axes: Sequence[float],
) -> Floats:
    """Depth below the surface of an ellipsoid in mm, negative outside."""
    import numpy as np

    squared = sum(
        ((at - c) / a) ** 2
        for at, c, a in zip((z, y, x), centre, semi_axes, strict=True)
    )
    return (1 - np.sqrt(squared)) * min(semi_axes)


# Lateral ventricle, right half mirrored: (z, y, x, radius) in mm along the way from
# the frontal horn over body and atrium to the occipital and to the temporal horn.
_VENTRICLE = (
    ((6, -33, 13, 4.0), (15, -8, 10, 5.0)),
    ((15, -8, 10, 5.0), (18, 14, 12, 5.0)),
    ((18, 14, 12, 5.0), (10, 34, 21, 6.5)),
    ((10, 34, 21, 6.5), (4, 56, 19, 1.5)),
    ((10, 34, 21, 5.0), (-12, 22, 31, 2.5)),
    ((-12, 22, 31, 2.5), (-18, 0, 30, 2.0)),
)
# Deep grey nuclei, right half mirrored: centre and semi-axes (z, y, x) in mm.
_NUCLEI = (
    ((8, -20, 17), (9, 11, 5)),  # caudate
    ((0, -3, 28), (11, 17, 6)),  # putamen and pallidum
    ((4, 15, 10), (9, 14, 8)),  # thalamus
)


def _healthy(
    z: Floats, y: Floats, x: Floats, ventricle_size: float, folds: _Folds
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.bool_]]:
    """Tissue numbers without lesion, distance from the pial surface in mm (within
    the cerebrum; negative in CSF), and where the posterior fossa is."""
    import numpy as np

    side = np.abs(x)
    ratio = np.maximum(_head_radius(z, y, x), 1e-3)
    length = np.sqrt(z**2 + y**2 + x**2)
    depth = length * (1 / ratio - 1)
    # the base: frontal lobes end higher than temporal lobes, with a cistern between
    frontal = 1 / (1 + np.exp((y + 36) / 4))
    base = -42 + 20 * np.maximum(frontal, np.exp(-((x / 17) ** 2)))
    depth = np.minimum(depth, z - base)

    little = _ellipsoid(z, y, side, (-40, 48, 14), (22, 32, 36))
    stem = 12 - np.hypot(side, y - 12 + 0.25 * (z + 20))
    stem = np.minimum(stem, np.minimum(-4 - z, z + 60))
    fossa = np.maximum(little, stem)
    # tentorium: a gap of CSF between cerebrum and what lies below
    depth = np.where(little > -2.5, -2.5 - little, depth)
    cerebellum = (fossa > 0) & (fossa > depth)

    cortex = _pial_distance(z, y, x, depth, ratio, folds)
    tissue = np.full(z.shape, _NUMBER["air"], np.uint8)
    brain = (depth > 0) | (fossa > 0) | ((little > -4) & (ratio < 1) & (z > -40))
    tissue[brain] = _NUMBER["csf"]
    tissue[(depth > 0) & (cortex > 0)] = _NUMBER["grey_matter"]
    tissue[(depth > 0) & (cortex > 3.6)] = _NUMBER["white_matter"]
    for centre, semi_axes in _NUCLEI:
        inside = (_ellipsoid(z, y, side, centre, semi_axes) > 0) & (depth > 6)
        tissue[inside] = _NUMBER["deep_grey_matter"]

    leaves = (little > 1) & (little < 12) & (np.sin(0.9 * z + 0.25 * y) > 0.1)
    tissue[cerebellum] = _NUMBER["white_matter"]
    tissue[cerebellum & ((little > 0) & (little < 4) | leaves) & (stem < 0)] = _NUMBER[
        "grey_matter"
    ]
    tissue[cerebellum & (np.maximum(little, stem) < 1)] = _NUMBER["csf"]

    fluid = _ellipsoid(z, y, side, (0, 2, 0), (11, 15, 2.2 * ventricle_size)) > 0
    fluid |= _ellipsoid(z, y, side, (-36, 27, 0), (9, 5, 7)) > 0
    for start, end in _VENTRICLE:
        fluid |= _capsule(z, y, side, start, end, ventricle_size)
    tissue[fluid & brain] = _NUMBER["csf"]
    plexus = _capsule(z, y, side, (12, 30, 19, 2.2), (4, 36, 22, 1.5), 1.0)
    tissue[plexus & brain] = _NUMBER["choroid_plexus"]
    sinus = (side < 2.2) & (depth > 0) & (depth < 5) & ((z > 15) | (y > 60))
    tissue[sinus] = _NUMBER["vessel"]
    return tissue, np.where(cerebellum, little - 1, cortex), cerebellum


def _capsule(
    z: Floats,
    y: Floats,
    x: Floats,
    start: Sequence[float],
    end: Sequence[float],
    size: float,
) -> NDArray[np.bool_]:
    """Points within a tube between two (z, y, x, radius), radii times ``size``."""
    import numpy as np

    way = [b - a for a, b in zip(start[:3], end[:3], strict=True)]
    offset = [at - a for at, a in zip((z, y, x), start[:3], strict=True)]
    dot = sum(o * w for o, w in zip(offset, way, strict=True))
    along = np.clip(dot / sum(w * w for w in way), 0, 1)
    squared = sum((o - along * w) ** 2 for o, w in zip(offset, way, strict=True))
    return squared < (size * (start[3] + along * (end[3] - start[3]))) ** 2


def _pial_distance(
    z: Floats, y: Floats, x: Floats, depth: Floats, ratio: Floats, folds: _Folds
) -> Floats:
    """Distance in mm from the nearest surface of the cortex, negative in CSF: outer
    surface, sulci, the fissure between the hemispheres and the Sylvian fissures."""
    import numpy as np

    side = np.abs(x)
    distance = depth - 1.2  # subarachnoid space
    # between the hemispheres, around the corpus callosum
    callosum = np.sqrt(((z - 4) / 20) ** 2 + ((y - 2) / 44) ** 2)
    within = ((1 - callosum) * 22).clip(0)
    distance = np.minimum(distance, np.hypot(side, within) - 1.0)
    # Sylvian: a sheet that rises backwards and ends at the insula
    sheet = 0.8 * (z + 6 - 0.75 * y + 3 * np.sin(0.13 * y + 0.1 * side))
    short = np.maximum(34 - side, 0)
    ends = np.maximum(np.abs(y + 4) - 30, 0)
    sylvian = np.sqrt(sheet**2 + short**2 + ends**2) - 1.1
    distance = np.minimum(distance, sylvian)

    near = (depth > 0) & (depth < 26)
    shallow = depth[near]
    outwards = 1 / ratio[near]
    surface = np.stack([z[near], y[near], x[near]]) * outwards
    # sheets meander on their way inwards
    meander = 2.5 * np.sin(0.3 * shallow + 0.09 * surface[[1, 2, 0]])
    sheets = folds.distance(surface + meander)
    # sulci differ in depth from place to place, and narrow inwards
    reach = 16 + 4 * np.sin(0.11 * surface[0] + 0.07 * surface[1] + 0.09 * surface[2])
    past = np.maximum(shallow - reach, 0)
    width = 1.7 * (1 - shallow / reach).clip(0.3, 1)
    distance[near] = np.minimum(distance[near], np.hypot(sheets, past) - width)
    return distance


# ----------------------------------------------------------------------- defects


def _spoil_label(
    case_id: str,
    planted: str,
    truth: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.uint8]:
    """The label map (z, y, x) with one of ``LABEL_DEFECTS``."""
    import numpy as np

    if planted == "swapped_labels":
        return np.array([0, 3, 1, 2], np.uint8)[truth]
    if planted == "shifted_label":
        return _shift(truth, spacing)
    if planted == "other_patient":
        return _other_label(case_id, truth, spacing, seed)
    if planted == "over_segmentation":
        return _over_segment(truth, brain, spacing)
    return _miss(truth)


def _shift(
    label: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Moved by 24 mm in plane (less if there is no room), to where room is."""
    import numpy as np

    room = []
    for axis in (1, 2):
        occupied = np.flatnonzero((label > 0).any(axis=tuple({0, 1, 2} - {axis})))
        room += [
            (int(occupied[0]), axis, -1),
            (label.shape[axis] - 1 - int(occupied[-1]), axis, 1),
        ]
    free, axis, direction = max(room)
    step = min(round(_SHIFT_MM / spacing[axis]), free)
    return np.roll(label, direction * step, axis=axis)


def _other_label(
    case_id: str,
    truth: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.uint8]:
    """The label map of a patient outside the cohort, sick in the other hemisphere."""
    own = _draw_lesion(case_id, "", seed).foci[0].centre[2]
    attempt = 0
    while True:
        other = f"{case_id} confused with {attempt}"
        lesion = _draw_lesion(other, "", seed)
        if lesion.foci[0].centre[2] * own < 0:
            z, y, x = truth.shape
            return _anatomy(other, lesion, (z, y, x), spacing, seed)[1]
        attempt += 1


def _over_segment(
    truth: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Drawn with a broad pen: within the brain and in plane, the whole tumour 12 mm
    too wide (labelled oedema), its core 6 mm (labelled enhancing, or as core where
    nothing enhances)."""
    import numpy as np

    core_label = 3 if (truth == 3).any() else 2
    whole = _widen(truth > 0, _DILATION_WHOLE_MM, spacing) & brain
    core = _widen(truth > 1, _DILATION_CORE_MM, spacing) & brain
    label = truth.copy()
    label[whole & (truth == 0)] = 1
    label[core & (truth < 2)] = core_label
    return np.ascontiguousarray(label)


def _widen(
    mask: NDArray[np.bool_], margin: float, spacing: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Mask with all that is within ``margin`` mm of it in the same slice."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    wide = mask.copy()
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        away = distance_transform_edt(~mask[index], sampling=spacing[1:])
        wide[index] = away <= margin
    return wide


def _miss(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Only the top of the lesion drawn: the uppermost slices, until they hold 2 % of
    its voxels (an empty map would not pass the checks)."""
    import numpy as np

    counts = (truth > 0).sum(axis=(1, 2))
    from_top = np.cumsum(counts[::-1])[::-1]
    lowest = int(np.flatnonzero(from_top >= _MISSED_SHARE_KEPT * counts.sum())[-1])
    label = truth.copy()
    label[:lowest] = 0
    return label


def _corrupt_channel(
    case_id: str, image: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """One channel (of the two that matter most to a reader: FLAIR or T1gd) spoilt
    inside the brain by noise, ghosts or inverted contrast."""
    import numpy as np

    draw = _generator(seed, case_id, "artefact")
    channel = int(draw.choice([CHANNEL_NAMES.index(n) for n in ("FLAIR", "T1gd")]))
    kind = draw.choice(["noise", "ghosts", "inverted"])
    plane = image[channel]
    brain = plane > 0
    level = float(np.median(plane[brain]))
    if kind == "noise":
        spoilt: Floats = add_rician_noise(plane, level, draw)
    elif kind == "ghosts":
        # copies along the phase direction, as of a head that nods
        step = plane.shape[1] // 4
        ghosts = [np.roll(plane, k * step, axis=1) for k in (1, 2, 3)]
        spoilt = 0.4 * plane + 0.6 * np.maximum.reduce(ghosts)
        spoilt = add_rician_noise(spoilt, 0.15 * level, draw)
    else:
        spoilt = np.percentile(plane[brain], 99.5) - plane
    corrupted = image.copy()
    # not zero inside the brain: zero means outside
    corrupted[channel] = np.where(brain, np.maximum(spoilt, 0.01 * level), 0)
    return corrupted
