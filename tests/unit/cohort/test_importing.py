"""Imported cases keep their voxels, their type and their place in space."""

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from unit.cohort.folders import PHANTOM, SHARED, config, needs_patients

from casesim.cohort.cases import Case
from casesim.cohort.importing import import_case
from casesim.cohort.loading import load_cohort
from casesim.cohort.phantom import patient
from casesim.errors import UserError

# Oblique, anisotropic, with different qform and sform codes.
ANGLE = np.deg2rad(20)


AFFINE = np.eye(4)


AFFINE[:3, :3] = np.array(
    [[-np.cos(ANGLE), np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]]
) @ np.diag([0.9, 1.1, 3.0])


AFFINE[:3, 3] = [12.5, -33.25, 7.0]


def write_nifti(
    path: Path,
    voxels: NDArray[Any],
    affine: NDArray[Any] = AFFINE,
    scaling: tuple[float, float] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    if scaling:
        image.header.set_slope_inter(*scaling)
    nib.save(image, path)
    return path


def noise(shape: tuple[int, ...], dtype: Any = np.int16, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(1, 1000, shape).astype(dtype)


def outputs(folder: Path, channels: int) -> tuple[list[Path], Path]:
    images = [folder / f"imagesTr/out_{i:04d}.nii.gz" for i in range(channels)]
    return images, folder / "labelsTr/out.nii.gz"


def assert_same_space(a: Path, b: Path) -> None:
    """Equal geometry by both readers, in the first three axes."""
    first: Any = nib.load(a)
    second: Any = nib.load(b)
    np.testing.assert_array_equal(first.affine, second.affine)
    for form in ("qform", "sform"):
        for one, other in zip(
            getattr(first, f"get_{form}")(coded=True),
            getattr(second, f"get_{form}")(coded=True),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    one, other = sitk.ReadImage(str(a)), sitk.ReadImage(str(b))
    assert one.GetSpacing()[:3] == other.GetSpacing()[:3]
    assert one.GetOrigin()[:3] == other.GetOrigin()[:3]
    n, m = one.GetDimension(), other.GetDimension()
    np.testing.assert_array_equal(
        np.reshape(one.GetDirection(), (n, n))[:3, :3],
        np.reshape(other.GetDirection(), (m, m))[:3, :3],
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, ">i2"])
@pytest.mark.parametrize("scaling", [None, (0.5, -3.0)])
def test_msd_import_keeps_voxels_type_and_geometry(
    tmp_path: Path, dtype: Any, scaling: tuple[float, float] | None
) -> None:
    voxels = noise((7, 6, 5, 3), dtype)
    image = nib.Nifti1Image(voxels, AFFINE)
    if np.dtype(dtype).byteorder == ">":
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(dtype)
        image = nib.Nifti1Image(voxels, AFFINE, header)
    image.set_sform(AFFINE, 2)
    image.set_qform(AFFINE, 1)
    if scaling:
        image.header.set_slope_inter(*scaling)
    source = tmp_path / "imagesTr/a.nii.gz"
    source.parent.mkdir()
    nib.save(image, source)
    label = write_nifti(tmp_path / "labelsTr/a.nii.gz", noise((7, 6, 5), np.uint8) % 3)
    case = Case("a", (str(source),), str(label), "pool", True, "msd")
    images_out, label_out = outputs(tmp_path, 3)
    import_case(case, {0: 0, 1: 1, 2: 2}, images_out, label_out)
    whole: Any = nib.load(source)
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(source)))
    for i, path in enumerate(images_out):
        part: Any = nib.load(path)
        assert part.get_data_dtype() == whole.get_data_dtype()
        assert part.shape == (7, 6, 5)
        stored = part.dataobj.get_unscaled()
        np.testing.assert_array_equal(stored, voxels[..., i])
        np.testing.assert_array_equal(
            np.asanyarray(part.dataobj), np.asanyarray(whole.dataobj)[..., i]
        )
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(path))), by_itk[i]
        )
        assert_same_space(source, path)
    assert label_out.read_bytes() == label.read_bytes()


def test_channel_files_are_copied_byte_by_byte(tmp_path: Path) -> None:
    images = [
        write_nifti(tmp_path / f"imagesTr/a_{i:04d}.nii.gz", noise((5, 6, 7), seed=i))
        for i in range(2)
    ]
    label = write_nifti(tmp_path / "labelsTr/a.nii.gz", noise((5, 6, 7), np.uint8) % 3)
    case = Case("a", tuple(map(str, images)), str(label), "pool", True, "nnunet")
    images_out, label_out = outputs(tmp_path / "out", 2)
    import_case(case, {0: 0, 1: 1, 2: 2}, images_out, label_out)
    for source, target in zip([*images, label], [*images_out, label_out], strict=True):
        assert source.read_bytes() == target.read_bytes()
        assert not target.samefile(source)


def test_plain_nifti_is_packed_and_label_numbers_are_mapped(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "p/p_flair.nii", noise((5, 6, 7)))
    native = np.array([0, 1, 2, 4], np.int16)[noise((5, 6, 7)) % 4]
    label = write_nifti(tmp_path / "p/p_seg.nii", native)
    case = Case("p", (str(image),), str(label), "pool", True, "brats")
    images_out, label_out = outputs(tmp_path / "out", 1)
    label_map = {0: 0, 2: 1, 1: 2, 4: 3}
    import_case(case, label_map, images_out, label_out)
    assert gzip.decompress(images_out[0].read_bytes()) == image.read_bytes()
    assert_same_space(image, images_out[0])
    assert_same_space(label, label_out)
    mapped: Any = nib.load(label_out)
    assert mapped.get_data_dtype() == np.uint8
    values = np.asanyarray(mapped.dataobj)
    for number, ours in label_map.items():
        np.testing.assert_array_equal(values == ours, native == number)
    by_itk = sitk.GetArrayFromImage(sitk.ReadImage(str(label_out)))
    np.testing.assert_array_equal(by_itk.T, values)
    first = [path.read_bytes() for path in [*images_out, label_out]]
    import_case(case, label_map, images_out, label_out)
    assert first == [path.read_bytes() for path in [*images_out, label_out]]


def test_labels_stored_as_floats_become_integers(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "imagesTr/a_0000.nii.gz", noise((5, 6, 7)))
    values = (noise((5, 6, 7)) % 3).astype(np.float32)
    label = write_nifti(tmp_path / "labelsTr/a.nii.gz", values)
    case = Case("a", (str(image),), str(label), "pool", True, "nnunet")
    images_out, label_out = outputs(tmp_path / "out", 1)
    import_case(case, {0: 0, 1: 1, 2: 2}, images_out, label_out)
    stored: Any = nib.load(label_out)
    assert stored.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(stored.dataobj), values)


@pytest.mark.parametrize("scaling", [(0.0, 5.0), (1 / 85, 0.0), (np.nan, 2.0)])
def test_imported_values_are_those_that_simpleitk_reads(
    tmp_path: Path, scaling: tuple[float, float]
) -> None:
    """Also where nibabel reads others: with a slope of 0 or none and an intercept."""
    image = write_nifti(tmp_path / "a.nii", noise((5, 6, 7, 2)))
    label = write_nifti(tmp_path / "seg.nii", 85 * (noise((5, 6, 7), np.uint8) % 2))
    for path in (image, label):
        content = bytearray(path.read_bytes())
        content[112:120] = struct.pack("<2f", *scaling)
        path.write_bytes(content)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))
    native = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
    case = Case("a", (str(image),), str(label), "pool", True, "msd")
    images_out, label_out = outputs(tmp_path / "out", 2)
    values = sorted({int(value) for value in np.unique(native)})
    label_map = {value: number for number, value in enumerate(values)}
    import_case(case, label_map, images_out, label_out)
    for channel, path in enumerate(images_out):
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(read, expected[channel])
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(label_out)))
    np.testing.assert_array_equal(np.array(values)[read], native)
    assert_same_space(label, label_out)


def test_what_cannot_be_imported_leaves_no_file(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a.nii.gz", noise((5, 6, 7, 2)))
    label = write_nifti(tmp_path / "seg.nii.gz", np.full((5, 6, 7), 9, np.uint8))
    images_out, label_out = outputs(tmp_path / "out", 2)
    case = Case("a", (str(image),), str(label), "pool", True, "msd")
    with pytest.raises(UserError, match=r"seg.nii.gz holds the values \[9\]"):
        import_case(case, {0: 0, 1: 2, 2: 1}, images_out, label_out)
    with pytest.raises(UserError, match=r"a.nii.gz has the shape \(5, 6, 7, 2\)"):
        import_case(case, {0: 0}, images_out[:1], label_out)
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.nii\.gz cannot be read"):
        import_case(case, {0: 0}, images_out, label_out)
    assert not label_out.exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_phantoms_are_written_as_generated(tmp_path: Path) -> None:
    cohort = load_cohort(config("phantom"))
    case = cohort.cases[0]
    images_out, label_out = outputs(tmp_path, 4)
    import_case(case, cohort.label_map, images_out, label_out, PHANTOM, 5)
    made = patient.generate(case.id, PHANTOM, "", 5)
    for path, expected in zip(
        [*images_out, label_out], [*made.image, made.label], strict=True
    ):
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
        assert image.GetSpacing() == (5.0, 6.0, 6.0)


@needs_patients
def test_brats_folder_imports_to_the_voxels_of_its_msd_twin(tmp_path: Path) -> None:
    """The same patient in LPS and uncropped, and in RAS and cropped to the brain."""
    name = "BraTS2021_00495"
    written = []
    for source, folder in (
        ("brats", "BraTS2021_native"),
        ("msd", "Task01_BrainTumour"),
    ):
        path = SHARED / "data" / folder
        cohort = load_cohort(
            config(source, path, pool=[name], train_cases=1, held_out=0)
        )
        assert not [p for p in cohort.problems if p.severity == "error"]
        images_out, label_out = outputs(tmp_path / source, 4)
        import_case(cohort.case(name), cohort.label_map, images_out, label_out)
        written.append([*images_out, label_out])
    for native, cropped in zip(*written, strict=True):
        whole, part = sitk.ReadImage(str(native)), sitk.ReadImage(str(cropped))
        assert whole.GetSize() == (240, 240, 155)
        assert whole.GetDirection() != part.GetDirection()
        # On the twin's grid by place in space; voxel centres coincide.
        moved = sitk.Resample(whole, part, sitk.Transform(), sitk.sitkNearestNeighbor)
        expected = sitk.GetArrayFromImage(part)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(moved), expected)
        # Nothing of the brain lies outside of the crop.
        total = np.count_nonzero(sitk.GetArrayFromImage(whole))
        assert total == np.count_nonzero(expected) > 0
