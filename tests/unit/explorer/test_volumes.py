"""Images and label maps come back out of the page's files as they went in."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from unit.explorer.runs import write_volume

from casesim.explorer import volumes


def decode_channel(part: dict[str, Any]) -> np.ndarray:
    """The voxels of the box, 0 to 255, as the page reads them."""
    z0, z1, y0, y1, x0, x1 = part["box"]
    stacks = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))).convert("L"))
        for sprite in part["sprites"]
    ]
    return np.concatenate(stacks).reshape(z1 - z0, y1 - y0, x1 - x0)


def decode_map(part: dict[str, Any]) -> np.ndarray:
    whole = np.zeros(part["shape"], np.uint16)
    kind = "<u2" if part["bytes"] == 2 else "u1"
    voxels = np.frombuffer(zlib.decompress(base64.b64decode(part["data"])), kind)
    view = volumes.crop(whole, part["box"])
    view[:] = voxels.reshape(view.shape)
    return whole


def test_a_channel_keeps_its_grey_values(tmp_path: Path) -> None:
    z, y, x = np.mgrid[:5, :40, :30]
    voxels = np.zeros((5, 40, 30), np.float32)
    voxels[1:5, 6:36, 4:28] = (100 + 10 * z + 5 * y + 2 * x)[1:5, 6:36, 4:28]
    path = tmp_path / "image.nii.gz"
    write_volume(voxels, path, (3.0, 1.0, 2.0))
    part = volumes.channel(path)
    assert part["shape"] == [5, 40, 30]
    assert part["box"] == [1, 5, 6, 36, 4, 28]
    assert part["spacing"] == [3.0, 1.0, 2.0]
    low, high = part["range"]
    assert low == 0
    assert high == pytest.approx(np.percentile(voxels[voxels > 0], 99.9), abs=1e-3)
    found = low + decode_channel(part) / 255 * (high - low)
    expected = voxels[1:5, 6:36, 4:28].clip(low, high)
    # WebP's quality 80: a hundredth of the range.
    assert np.abs(found - expected).mean() < 0.01 * (high - low)
    shown = np.percentile(voxels[voxels > 0], [1, 99])
    np.testing.assert_allclose(part["window"], shown, atol=1e-3)


def test_a_channel_of_one_value_and_one_with_holes(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    write_volume(np.full((3, 4, 5), 7.0, np.float32), path, (1, 1, 1))
    part = volumes.channel(path)
    assert part["sprites"] == []
    assert part["box"] == [0] * 6
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[1, 1, 1:4] = [np.nan, 4.0, np.inf]
    write_volume(voxels, path, (1, 1, 1))
    part = volumes.channel(path)
    assert part["box"] == [1, 2, 1, 2, 2, 3]
    assert part["range"][0] < part["range"][1]
    assert part["window"][0] < part["window"][1]


def test_large_volumes_are_cut_into_several_sprites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.zeros((9, 20, 20), np.float32)
    voxels[:, 1:-1, 1:-1] = np.arange(1, 10)[:, None, None]
    path = tmp_path / "image.nii.gz"
    write_volume(voxels, path, (1, 1, 1))
    monkeypatch.setattr(volumes, "MOST_PIXELS", 4 * 18 * 18)
    part = volumes.channel(path)
    assert len(part["sprites"]) == 3
    levels = decode_channel(part).mean(axis=(1, 2))
    assert (np.diff(levels) > 15).all()


@given(
    arrays(np.uint16, (3, 4, 5), elements=st.sampled_from([0, 1, 3, 300])),
)
def test_label_maps_come_back_whole(voxels: np.ndarray) -> None:
    part = volumes.packed_map(voxels)
    np.testing.assert_array_equal(decode_map(part), voxels)
    assert part["bytes"] == (2 if voxels.max() > 255 else 1)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SAL"])
def test_voxels_lie_as_the_affine_says(tmp_path: Path, orientation: str) -> None:
    voxels = np.zeros((4, 6, 8), np.uint8)
    voxels[3, 0, 7] = 2  # on top, in front, on the patient's left
    path = tmp_path / "label.nii.gz"
    write_volume(voxels, path, (1, 2, 3), orientation)
    part = volumes.label_map(path)
    assert part["shape"] == [4, 6, 8]
    np.testing.assert_array_equal(decode_map(part), voxels)
