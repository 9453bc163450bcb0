"""A raw folder of good cases, to be broken."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from casesim.cohort.checks import listing
from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort
from casesim.cohort.problem import Problem

SHAPE = (9, 8, 7)


CHANNELS = ("FLAIR", "T1w")


def image_of(case: int, channel: int = 0) -> NDArray[np.int16]:
    voxels = np.random.default_rng([case, channel]).integers(1, 500, SHAPE)
    voxels[0] = 0
    return voxels.astype(np.int16)


def label_of(case: int) -> NDArray[np.uint8]:
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 2:6, 2:5] = 1
    label[3:5, 3:5, 3 + case % 2] = 2
    label[6, 1 + case % 6, 1:4] = 1
    return label


def affine_of(spacing: float = 1.0) -> NDArray[Any]:
    affine = np.diag([-spacing, -spacing, spacing, 1])
    affine[:3, 3] = [10, 20, -30]
    return affine


def save(path: Path, voxels: NDArray[Any], affine: NDArray[Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine_of() if affine is None else affine), path)


def save_skewed(path: Path) -> None:
    """The image of case 0 with axes that are not at right angles, which SimpleITK
    refuses."""
    skewed = affine_of()
    skewed[0, 1] = 0.7
    image = nib.Nifti1Image(image_of(0), skewed)
    image.set_qform(affine_of(), 0)
    nib.save(image, path)


class Folder:
    """An nnU-Net raw folder of six good cases, to be broken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for case in range(6):
            for channel in range(2):
                save(self.image(case, channel), image_of(case, channel))
            save(self.label(case), label_of(case))
        self.describe()

    def describe(self, **changes: Any) -> None:
        content = {
            "channel_names": dict(enumerate(CHANNELS)),
            "labels": {"background": 0, "edema": 1, "core": 2},
            "file_ending": ".nii.gz",
            **changes,
        }
        (self.root / "dataset.json").write_text(json.dumps(content))

    def image(self, case: int, channel: int = 0) -> Path:
        return self.root / f"imagesTr/case_{case}_{channel:04d}.nii.gz"

    def label(self, case: int) -> Path:
        return self.root / f"labelsTr/case_{case}.nii.gz"

    @property
    def config(self) -> dict[str, Any]:
        return {
            **{"source": "nnunet", "path": str(self.root), "seed": 0},
            **{"pool": 4, "train_cases": 3, "held_out": 2},
        }

    def check(self) -> list[Problem]:
        return check_cohort(load_cohort(self.config), 2)


def only(problems: list[Problem], severity: str = "error") -> Problem:
    assert len(problems) == 1, listing.format_checks(problems)
    assert problems[0].severity == severity
    return problems[0]


def cut(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])


def moved(**changes: float) -> NDArray[Any]:
    affine = affine_of()
    affine[0, 3] += changes.get("origin", 0)
    affine[1, 1] *= changes.get("spacing", 1)
    if "angle" in changes:
        c, s = np.cos(changes["angle"]), np.sin(changes["angle"])
        affine[:2, :2] = affine[:2, :2] @ np.array([[c, -s], [s, c]])
    return affine
