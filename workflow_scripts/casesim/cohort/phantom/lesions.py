"""Tumours: where they lie, how they grow, what they push away."""

import math
from dataclasses import dataclass, replace

import numpy as np

from casesim.cohort.phantom.draws import Floats, generator
from casesim.cohort.phantom.head import head_radius


@dataclass(frozen=True)
class Focus:
    """One tumour: centre (z, y, x), radius and extent of the oedema beyond it, in
    mm of the standard head; axis ratios (z, y, x), turned in plane by ``angle``."""

    centre: tuple[float, float, float]
    radius: float
    oedema: float
    stretch: tuple[float, float, float]
    angle: float


@dataclass(frozen=True)
class Lesion:
    foci: tuple[Focus, ...]
    rim: float  # mean thickness of the enhancing rim in mm, 0 for none
    necrosis: float  # share of the radius that is necrotic
    mass_effect: float  # displacement at the tumour's margin over its radius


def draw_lesion(case_id: str, planted: str, seed: int) -> Lesion:
    """Position, size and make-up of the lesion: medians and spread of the whole
    tumour as in MSD Task01 (oedema 54, core 12, rim 15 mL in an adult head)."""
    draw = generator(seed, case_id, "lesion")
    focus = _draw_focus(draw)
    lesion = Lesion(
        foci=(focus,),
        rim=draw.uniform(5.5, 7.5),
        necrosis=draw.uniform(0.45, 0.7),
        mass_effect=draw.uniform(0.15, 0.4),
    )
    control = generator(seed, case_id, "control")
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


def _draw_focus(draw: np.random.Generator) -> Focus:
    """A tumour in the deep white matter of a cerebral hemisphere."""
    while True:
        z = draw.uniform(-8, 34)
        y = draw.uniform(-52, 52)
        x = draw.uniform(20, 46)
        if 0.38 < head_radius(z, y, x) < 0.66:
            break
    radius = 19.5 * math.exp(0.18 * float(draw.standard_normal()))
    radius = min(max(radius, 16.0), 24.0)
    return Focus(
        centre=(z, y, x * float(draw.choice([-1.0, 1.0]))),
        radius=radius,
        oedema=draw.uniform(0.45, 0.95) * radius,
        stretch=(draw.uniform(0.85, 1.15), draw.uniform(0.85, 1.35), 1.0),
        angle=draw.uniform(0, math.pi),
    )


@dataclass(frozen=True)
class Growth:
    """``margins``: distance in mm from the margin of each focus, negative inside, if
    nothing stopped it; ``ratio``: 0 in a focus' middle, 1 at its margin."""

    margins: list[Floats]
    ratio: Floats


def grow(z: Floats, y: Floats, x: Floats, lesion: Lesion, lumps: Floats) -> Growth:
    """Where the foci of a lesion reach; ``lumps`` roughen their ellipsoids."""
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
    return Growth(margins, np.minimum.reduce(ratios))


def push_back(
    z: Floats, y: Floats, x: Floats, lesion: Lesion, freedom: Floats
) -> tuple[Floats, Floats, Floats]:
    """Where points lay before the mass pushed them away.

    The push is largest at a tumour's margin and falls off over 30 mm; ``freedom``
    (0 to 1) holds the surface of the brain, inside the skull, in its place.
    """
    home = [z, y, x]
    for focus in lesion.foci:
        offset = [at - c for at, c in zip((z, y, x), focus.centre, strict=True)]
        distance = np.sqrt(sum(part**2 for part in offset)) + 1e-3
        fall = np.exp(-np.maximum(distance - focus.radius, 0) / 30)
        inner = np.minimum(distance / focus.radius, 1)
        push = lesion.mass_effect * focus.radius * fall * inner * freedom / distance
        home = [at - push * part for at, part in zip(home, offset, strict=True)]
    return home[0], home[1], home[2]
