"""Tissues by their MR parameters."""

from dataclasses import dataclass


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
NUMBER = {name: number for number, name in enumerate(TISSUES)}
