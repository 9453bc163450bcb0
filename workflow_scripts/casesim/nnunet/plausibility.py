"""Plans that nnU-Net writes without a word, and that cannot work.

A spacing in a header that is wrong, or a target spacing that does not fit the cohort,
give a network for slices of one voxel, or for images of a few voxels; everything runs,
and every number that comes out means nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from casesim.errors import UserError
from casesim.nnunet import own_network

# Below, a network of nnU-Net's kind, which halves each axis down to 4, cannot halve it.
SMALLEST_PATCH = 8
# nnU-Net pads an axis to a multiple of a power of two, to less than twice its size.
LARGEST_PADDING = 2.0
# The planner's own lower bound.
SMALLEST_BATCH = 2
# How many times coarser or finer than the cohort images may be made.
LARGEST_RESAMPLING = 8.0

AXES = "zyx"


def check_plans(
    plans: Mapping[str, Any],
    configuration: str,
    fingerprint: Mapping[str, Any],
    nnunet_config: Mapping[str, Any],
) -> None:
    """Check what was planned against the images that it was planned for.

    Args:
        plans: content of nnUNetPlans.json; its axes are those of the images, reordered
            by `transpose_forward` (the first is the slices' in 2d).
        configuration: the configuration that will be trained.
        fingerprint: content of dataset_fingerprint.json; `spacings` in mm and
            `shapes_after_crop` in voxels, (z, y, x) for each pool case.
        nnunet_config: the config's `nnunet`.

    Raises:
        UserError: everything that makes the plans unusable, and what to set.
    """
    problems = list(_problems(plans, configuration, fingerprint, nnunet_config))
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"The plans for this cohort cannot work:\n{lines}")


def check_target_spacing(
    spacing: Sequence[float] | None, fingerprint: Mapping[str, Any]
) -> None:
    """Check what the planner would die of: cases that resampling leaves nothing of.

    Args:
        spacing: `nnunet.target_spacing`, (z, y, x) in mm, or None.
        fingerprint: as in `check_plans`.

    Raises:
        UserError: the spacing is too coarse for some axis.
    """
    if not spacing:
        return
    usual = _medians(fingerprint["spacings"])
    shape = _medians(fingerprint["shapes_after_crop"])
    for axis, (voxels, mm, target) in enumerate(
        zip(shape, usual, spacing, strict=True)
    ):
        if round(voxels * mm / target) < 1:
            raise UserError(
                f"nnunet.target_spacing is {_by(spacing)} mm (z, y, x): nothing is "
                f"left of the cases along {AXES[axis]}, where they have {voxels:.4g} "
                f"voxels of {mm:.4g} mm. Set it near "
                f"[{', '.join(f'{value:g}' for value in usual)}], or to null."
            )


def _problems(
    plans: Mapping[str, Any],
    configuration: str,
    fingerprint: Mapping[str, Any],
    nnunet_config: Mapping[str, Any],
) -> Iterator[str]:
    planned = own_network.resolve(plans, configuration)
    order = [int(axis) for axis in plans["transpose_forward"]]
    patch = [int(size) for size in planned["patch_size"]]
    trained = order[len(order) - len(patch) :]
    axes = [AXES[axis] for axis in trained]
    usual = _medians(fingerprint["spacings"])
    size = [
        voxels * usual[axis] / target
        for axis, voxels, target in zip(
            trained,
            [_medians(fingerprint["shapes_after_crop"])[axis] for axis in trained],
            planned["spacing"],
            strict=True,
        )
    ]
    small = [i for i, voxels in enumerate(patch) if voxels < SMALLEST_PATCH]
    if len(patch) == 3:
        # A volume may have few slices, but a network needs an image.
        small = [i for i in small if patch[i] == 1 or len(small) > 1]
    if small:
        yield _small_patch(patch, axes, order, usual, nnunet_config)
    elif any(p > LARGEST_PADDING * v for p, v in zip(patch, size, strict=True)):
        yield (
            f"The patch of {configuration} has {_by(patch)} voxels "
            f"({', '.join(axes)}), but the images have {_by(size)} at its spacing of "
            f"{_by(planned['spacing'])} mm: nearly all that the network sees is "
            f"padding. {_finer(usual, nnunet_config)}"
        )
    if planned["batch_size"] < SMALLEST_BATCH:
        yield (
            f"The batch of {configuration} has {planned['batch_size']} patch: too few "
            "for nnU-Net's loss and optimiser. Set nnunet.batch_size to 2 or more (or "
            "null), or raise nnunet.gpu_memory_target_gb."
        )
    ratios = [
        target / usual[axis]
        for axis, target in zip(trained, planned["spacing"], strict=True)
    ]
    if any(not 1 / LARGEST_RESAMPLING <= r <= LARGEST_RESAMPLING for r in ratios):
        yield (
            f"The plans resample to {_by(planned['spacing'])} mm "
            f"({', '.join(axes)}), but the cases have {_by(usual)} mm (z, y, x; "
            f"median): {_factor(ratios)}. {_finer(usual, nnunet_config)}"
        )


def _small_patch(
    patch: Sequence[int],
    axes: Sequence[str],
    order: Sequence[int],
    usual: Sequence[float],
    nnunet_config: Mapping[str, Any],
) -> str:
    what = (
        f"The patch has {_by(patch)} voxels ({', '.join(axes)}): no network can be "
        "trained on it."
    )
    if len(patch) == 2 and order[0] != 0:
        # Equal spacings leave the first axis, z, to the slices.
        even = [usual[0], *(min(usual[0], mm) for mm in usual[1:])]
        return (
            f"{what} nnU-Net takes the axis with the largest spacing for the slices' "
            f"own, here {AXES[order[0]]}, since the cases have {_by(usual)} mm (z, y, "
            "x). Correct the spacing in the headers if it is wrong (a single slice has "
            "its thickness there); or, if the slices lie along z, set "
            f"nnunet.target_spacing: [{', '.join(f'{mm:g}' for mm in even)}]."
        )
    return f"{what} {_finer(usual, nnunet_config)}"


def _finer(usual: Sequence[float], nnunet_config: Mapping[str, Any]) -> str:
    spacing = ", ".join(f"{mm:g}" for mm in usual)
    if nnunet_config.get("target_spacing"):
        return f"Set nnunet.target_spacing near [{spacing}], or to null."
    return (
        "Look whether the spacings in the headers are right; if they are, set "
        f"nnunet.target_spacing near [{spacing}], and take out cases of only a few "
        "voxels."
    )


def _factor(ratios: Sequence[float]) -> str:
    worst = max(ratios, key=lambda ratio: max(ratio, 1 / ratio))
    if worst > 1:
        return f"{worst:.3g} times coarser"
    return f"{1 / worst:.3g} times finer"


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(median(column)) for column in zip(*rows, strict=True)]


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
