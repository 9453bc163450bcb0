"""What a channel's name says about its values, as nnU-Net takes it.

nnU-Net chooses the normalisation by name (`get_normalization_scheme`): `CT` is clipped
and scaled by the cohort's percentiles, a few names have rules of their own, and all
others are z-scored. Air is about -1000 in CT, and 0 is soft tissue; elsewhere 0 is what
was masked out.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

CT = "ct"
Z_SCORE = "zscore"
NORMALISATIONS = (CT, "nonorm", Z_SCORE, "rescale_to_0_1", "rgb_to_0_1")


def normalisation(name: str) -> str:
    """The normalisation of a channel of that name, one of `NORMALISATIONS`."""
    folded = name.casefold()
    return folded if folded in NORMALISATIONS else Z_SCORE


def zero_is_background(names: Iterable[str]) -> bool:
    """Whether voxels that are 0 in all of these channels lie outside of the body."""
    return all(normalisation(name) != CT for name in names)


def told_apart(names: Sequence[str]) -> list[str]:
    """The channels' names, with their numbers where two are called alike."""
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} ({number})"
        for number, name in enumerate(names)
    ]
