import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates
from unit.conftest import tiny_case

from casesim.training.augmentation import augment

CONFIG = {
    "mirror_axes": [0, 1, 2],
    "elastic_alpha": [0, 200],
    "elastic_sigma": [9, 13],
    "scale": [1.0, 1.0],
}
STILL = CONFIG | {"mirror_axes": [], "elastic_alpha": [0, 0]}


def _augment(
    config: dict[str, Any] | None = None,
    case: str = "case_1",
    copy: int = 0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    return augment(*tiny_case(0), CONFIG | (config or {}), case, copy, seed)


def test_types_and_shapes() -> None:
    image, label = tiny_case(0)
    copy_image, copy_label = _augment()
    assert copy_image.shape == image.shape
    assert copy_image.dtype == np.float32
    assert copy_label.shape == label.shape
    assert copy_label.dtype == label.dtype


def test_the_case_itself_is_not_changed() -> None:
    image, label = tiny_case(0)
    augment(image, label, CONFIG, "case_1", 0, 0)
    np.testing.assert_array_equal(image, tiny_case(0)[0])
    np.testing.assert_array_equal(label, tiny_case(0)[1])


def test_nothing_to_do_changes_nothing() -> None:
    image, label = tiny_case(0)
    copy_image, copy_label = _augment(STILL)
    np.testing.assert_allclose(copy_image, image, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(copy_label, label)


def test_mirroring_alone_gives_the_eight_mirror_images() -> None:
    image, label = tiny_case(0)
    seen = set()
    for copy in range(40):
        copy_image, copy_label = _augment({"elastic_alpha": [0, 0]}, copy=copy)
        matches = [
            axes
            for axes in np.ndindex(2, 2, 2)
            if np.allclose(copy_image, _flip(image, axes), rtol=1e-4, atol=1e-3)
        ]
        assert len(matches) == 1
        np.testing.assert_array_equal(copy_label, _flip(label, matches[0]))
        seen.add(matches[0])
    assert len(seen) == 8


def _flip(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.flip(array, tuple(i - 3 for i, flipped in enumerate(axes) if flipped))


def test_only_the_axes_asked_for_are_mirrored() -> None:
    image, _ = tiny_case(0)
    for copy in range(10):
        copy_image, _ = _augment(
            {"elastic_alpha": [0, 0], "mirror_axes": [2]}, copy=copy
        )
        assert any(
            np.allclose(copy_image, _flip(image, axes), rtol=1e-4, atol=1e-3)
            for axes in [(0, 0, 0), (0, 0, 1)]
        )


def test_image_and_label_are_deformed_together() -> None:
    # The image is the label map, so that after deformation it has to agree with it.
    _, label = tiny_case(0)
    image = np.where(label > 0, 1000.0, 1.0).astype(np.float32)[None]
    config = CONFIG | {"elastic_alpha": [400, 400], "elastic_sigma": [4, 4]}
    copy_image, copy_label = augment(image, label, config, "case_1", 0, 0)
    assert (copy_label > 0).sum() > 50
    assert not np.array_equal(copy_label > 0, label > 0)
    agreement = (copy_image[0] > 500) == (copy_label > 0)
    assert agreement.mean() > 0.98
    assert agreement[binary_erosion(copy_label > 0)].all()


def test_deformation_is_batchgenerators_elastic_deformation() -> None:
    # Written out again from Simard et al. (2003): noise, smoothed, times alpha.
    image, label = tiny_case(0)
    config = STILL | {"elastic_alpha": [150, 150], "elastic_sigma": [5, 5]}
    copy_image, _ = augment(image, label, config, "case_1", 3, 7)
    seed = np.frombuffer(hashlib.sha256(b"7/case_1/3").digest(), np.uint32)
    draw = np.random.RandomState(seed)
    draw.uniform(size=3)  # whether to deform, alpha, sigma
    offsets = [
        150 * gaussian_filter(draw.uniform(-1, 1, label.shape), 5, mode="constant")
        for _ in range(3)
    ]
    coordinates = np.indices(label.shape) + np.array(offsets)
    expected = map_coordinates(image[0].astype(float), coordinates, order=3)
    inside = copy_image[0] != 0
    assert inside.mean() > 0.3
    np.testing.assert_allclose(copy_image[0][inside], expected[inside], rtol=1e-3)


def test_scale_changes_the_size() -> None:
    _, label = tiny_case(0)
    config = {"mirror_axes": [], "elastic_alpha": [0, 0]}
    _, smaller = _augment(config | {"scale": [1.3, 1.3]})
    # Coordinates grow by the factor, so the content shrinks by it.
    assert (smaller > 0).sum() == pytest.approx((label > 0).sum() / 1.3**3, rel=0.15)


def test_the_background_stays_zero() -> None:
    # nnU-Net finds the brain by what is not zero; cubic interpolation would smear it.
    image, _ = tiny_case(0)
    for copy in range(5):
        copy_image, copy_label = _augment(copy=copy)
        brain = np.any(copy_image != 0, axis=0)
        assert brain.sum() == pytest.approx(np.any(image != 0, axis=0).sum(), rel=0.05)
        assert not brain[[0, -1]].any()
        assert not copy_label[~brain].any()


def test_copies_differ_and_repeat() -> None:
    first, _ = _augment()
    np.testing.assert_array_equal(_augment()[0], first)
    for other in (_augment(copy=1), _augment(case="case_2"), _augment(seed=1)):
        assert not np.array_equal(other[0], first)


def test_numpys_random_state_is_left_alone() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    _augment()
    np.testing.assert_array_equal(np.random.random(3), expected)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(1, 200), min_size=1, max_size=3, unique=True),
    copy=st.integers(0, 1000),
)
def test_no_new_labels(values: list[int], copy: int) -> None:
    draw = np.random.default_rng(copy)
    label = draw.choice([0, *values], (6, 9, 8)).astype(np.uint8)
    image = draw.normal(100, 10, (1, 6, 9, 8)).astype(np.float32)
    config = CONFIG | {"scale": [0.9, 1.1]}
    copy_image, copy_label = augment(image, label, config, "a", copy, 0)
    assert set(np.unique(copy_label)) <= {0, *values}
    assert np.isfinite(copy_image).all()


def test_displacements_are_those_documented() -> None:
    from batchgenerators.augmentations.utils import elastic_deform_coordinates

    np.random.seed(0)
    moved = elastic_deform_coordinates(np.zeros((3, 48, 48, 48)), 200, 3)
    expected = 200 / np.sqrt(3) / (2 * np.sqrt(np.pi) * 3) ** 1.5
    assert moved.std() == pytest.approx(expected, rel=0.1)


def ct_case() -> tuple[np.ndarray, np.ndarray]:
    """A cylinder of soft tissue (0 HU) with a lesion, in air: (1, 12, 32, 32)."""
    z, y, x = np.mgrid[:12, :32, :32]
    body = (y - 16) ** 2 + (x - 16) ** 2 < 12**2
    lesion = (z - 6) ** 2 + (y - 16) ** 2 + (x - 14) ** 2 < 16
    image = np.select([lesion, body], [60.0, 0.0], -1000.0).astype(np.float32)
    return image[None], lesion.astype(np.uint8)


@pytest.mark.parametrize("scale", [[0.7, 0.7], [1.0, 1.0]])
def test_air_comes_in_around_a_ct(scale: list[float]) -> None:
    image, label = ct_case()
    config = CONFIG | {"scale": scale, "elastic_alpha": [200, 200]}
    for copy in range(3):
        moved, moved_label = augment(image, label, config, "a", copy, 0, ["CT"])
        corners = moved[0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(corners, -1000, atol=1)
        # Soft tissue is 0, and so it stays.
        assert abs(np.median(moved[moved > -500])) < 20
        assert set(np.unique(moved_label)) <= {0, 1}
        assert (moved_label[moved[0] < -500] == 0).all()


def test_a_volume_without_background_repeats_its_border() -> None:
    """As a cube cut out of a brain: no voxel of 0 comes in, for nnU-Net to mask."""
    draw = np.random.default_rng(0)
    image = draw.uniform(100, 200, (2, 10, 12, 14)).astype(np.float32)
    image = gaussian_filter(image, (0, 2, 2, 2))
    label = np.zeros(image.shape[1:], np.uint8)
    label[:, :6] = 1
    config = STILL | {"scale": [0.5, 0.5]}
    moved, moved_label = augment(image, label, config, "a", 0, 0)
    assert moved.min() > 0.9 * image.min()
    # A label at the border goes on with the image that does.
    assert moved_label[:, 0].all()
    assert not moved_label[:, -1].any()


def test_a_single_slice_is_deformed_in_its_plane() -> None:
    image, label = tiny_case(0)
    image, label = image[:, 6:7], label[6:7]
    assert len(np.unique(label)) == 4
    seen = set()
    for copy in range(6):
        copy_image, copy_label = augment(image, label, CONFIG, "case_1", copy, 0)
        assert copy_image.shape == image.shape
        assert copy_label.shape == label.shape
        # The lesion has not left the volume, as it would across the plane.
        size = np.count_nonzero(copy_label) / np.count_nonzero(label)
        assert 0.7 < size < 1.4
        assert set(np.unique(copy_label)) <= set(np.unique(label))
        seen.add(copy_label.tobytes())
    assert len(seen) == 6
    still, still_label = augment(image, label, STILL, "case_1", 0, 0)
    np.testing.assert_allclose(still, image, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(still_label, label)
    mirrored = CONFIG | {"elastic_alpha": [0, 0]}
    flips = {
        tuple(
            axes
            for axes in [(), (1,), (2,), (1, 2)]
            if np.array_equal(
                augment(image, label, mirrored, "case_1", copy, 0)[1],
                np.flip(label, axes),
            )
        )
        for copy in range(30)
    }
    assert flips == {((),), ((1,),), ((2,),), ((1, 2),)}
