"""The augmented copies of one case that its model is fine-tuned on.

Mirroring and elastic deformation with batchgenerators' `MirrorTransform` and
`SpatialTransform`, as in the paper: no rotation, no random crop.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from casesim.channels import zero_is_background


def augment(
    image: np.ndarray,
    label: np.ndarray,
    config: Mapping[str, Any],
    case_id: str,
    copy: int,
    seed: int,
    channel_names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """One augmented copy of a case, image and label deformed together.

    Parameters: `image` is (channel, z, y, x), `label` (z, y, x) of integers. `config`
    has `mirror_axes` (0 is z, 1 y, 2 x; each is mirrored with probability 1/2),
    `elastic_alpha` and `elastic_sigma` (ranges, see below) and `scale` (range of zoom
    factors common to the three axes; [1, 1] leaves it out). The result depends on
    `seed`, `case_id` and `copy` alone; numpy's global random state is as before
    afterwards.

    Returns the image as float32 and the label with its own type, and no label that was
    not there before. What comes in from outside the volume is background, 0 in both,
    where the volume is surrounded by it. Where it is not, or 0 is a tissue (in CT, by
    `channel_names`), the voxels at its border are repeated, labels as well.

    Deformation: batchgenerators' `elastic_deform_coordinates` smooths uniform noise
    between -1 and 1 with a Gaussian of sigma *voxels* and multiplies it by alpha. In a
    large volume the displacement along each axis therefore has a standard deviation of
    alpha / sqrt(3) / (2 sqrt(pi) sigma)^(3/2) voxels. For alpha = 200, the upper end of
    the default, that is 0.64 voxels with sigma = 9 and 0.37 with sigma = 13, and a
    voxel moves by 1.0 and 0.6 voxels on average, 2.1 and 1.2 in the farthest hundredth
    (measured in 140 x 170 x 140 voxels; hardly less in 28 x 56 x 56): a low-scale
    deformation.

    An image of a single slice (z = 1, as a picture is) is deformed in its plane, where
    the exponent is 2/2 and the same alpha moves voxels farther: 3.6 for alpha = 200 and
    sigma = 9.
    """
    from batchgenerators.transforms.spatial_transforms import (
        MirrorTransform,
        SpatialTransform,
    )

    shape, mirror_axes = label.shape, tuple(config["mirror_axes"])
    if len(label) == 1:
        # In 3-D, nearly all would come from outside of the slice.
        image, label = image[:, 0], label[0]
        mirror_axes = tuple(axis - 1 for axis in mirror_axes if axis > 0)
    # Cubic interpolation rings far into the background. nnU-Net takes what is not 0 for
    # brain, to crop and to normalise, so the brain's mask is deformed as the label is.
    inside = np.any(image != 0, axis=0)
    masked = zero_is_background(channel_names) and not _fills_its_border(inside)
    border = "constant" if masked else "nearest"
    batch = {
        "data": image[None].astype(np.float32),
        "seg": np.stack([label, inside])[None].astype(np.float32),
    }
    scale = tuple(config["scale"])
    deform = SpatialTransform(
        patch_size=label.shape,
        do_elastic_deform=True,
        alpha=tuple(config["elastic_alpha"]),
        sigma=tuple(config["elastic_sigma"]),
        do_rotation=False,
        do_scale=scale != (1, 1),
        scale=scale,
        border_mode_data=border,
        border_cval_data=0,
        order_data=3,
        border_mode_seg=border,
        border_cval_seg=0,
        # Nearest neighbour: an interpolated label map would hold labels that are not
        # there.
        order_seg=0,
        random_crop=False,
    )
    with _random_state(seed, case_id, copy):
        if mirror_axes:
            batch = MirrorTransform(axes=mirror_axes)(**batch)
        batch = deform(**batch)
    image = batch["data"][0]
    if masked:
        image *= batch["seg"][0, 1] > 0
    labels = batch["seg"][0, 0].astype(label.dtype)
    return image.astype(np.float32).reshape(-1, *shape), labels.reshape(shape)


def _fills_its_border(inside: np.ndarray) -> bool:
    """Whether no voxel on the faces of the volume is background."""
    faces = [np.take(inside, (0, -1), axis) for axis in range(inside.ndim)]
    return all(bool(face.all()) for face in faces)


@contextmanager
def _random_state(seed: int, case_id: str, copy: int) -> Iterator[None]:
    """Seed numpy's global state, the only one that batchgenerators draws from."""
    digest = hashlib.sha256(f"{seed}/{case_id}/{copy}".encode()).digest()
    before = np.random.get_state()
    np.random.seed(np.frombuffer(digest, dtype=np.uint32))
    try:
        yield
    finally:
        np.random.set_state(before)
