"""What networks are trained on where it is not each label by itself, as in nnU-Net.

nnU-Net's `dataset.json` may declare regions (unions of labels, which may overlap) in
place of labels, and a label `ignore` for voxels that nobody labelled: they teach
nothing and count nowhere. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

IGNORE = "ignore"


@dataclass(frozen=True)
class Targets:
    """Regions and the ignored label of a cohort; by default there are none.

    `regions` maps a name to label numbers, in the order of the network's outputs; empty
    where the network is trained on labels. `class_order` is nnU-Net's
    `regions_class_order`: the number that a label map gets where the region is
    segmented, one for each region, later ones over earlier ones. `ignore` is the number
    of ignored voxels.
    """

    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_order: tuple[int, ...] = ()
    ignore: int | None = None


LABELS_ALONE = Targets()


def number_names(groups: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """A name for each label number in some unions of labels, by number.

    The name of the union that holds nothing else, or `label_<number>`.
    """
    alone = {numbers[0]: name for name, numbers in groups.items() if len(numbers) == 1}
    every = sorted({number for numbers in groups.values() for number in numbers})
    return {number: alone.get(number, f"label_{number}") for number in every}
