"""Volumes that are no NIfTI, and pictures, against nnU-Net's own readers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io
from unit.cohort.folders import NNUNET_JSON, config, nnunet_folder, texts, touch

from casesim.cohort import formats
from casesim.cohort.cases import Case
from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.importing import import_case
from casesim.cohort.loading import load_cohort
from casesim.errors import UserError


def noise(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def write_volume(voxels: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.9, 3.1))
    image.SetOrigin((12.5, -33.25, 7))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_picture(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, pixels, check_contrast=False)
    return path


def imported(
    sources: list[Path], label: Path, folder: Path, channels: int
) -> tuple[list[str], str]:
    case = Case("a", tuple(map(str, sources)), str(label), "pool", True, "nnunet")
    images = [folder / f"a_{i:04d}.nii.gz" for i in range(channels)]
    import_case(case, {0: 0, 1: 1, 2: 2}, images, folder / "a.nii.gz")
    return [str(image) for image in images], str(folder / "a.nii.gz")


@pytest.mark.parametrize("ending", formats.VOLUMES)
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_volumes_are_what_nnunet_reads(ending: str, dtype: Any, tmp_path: Path) -> None:
    shape = (5, 20, 24)
    sources = [
        write_volume(noise(shape, dtype, i), tmp_path / f"a_{i:04d}{ending}")
        for i in range(2)
    ]
    label = write_volume(noise(shape, np.uint8) % 3, tmp_path / f"a{ending}")
    images, label_map = imported(sources, label, tmp_path / "out", 2)
    reader = SimpleITKIO()
    ours, place = reader.read_images(images)
    theirs, their_place = reader.read_images([str(source) for source in sources])
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(place["spacing"], their_place["spacing"], rtol=1e-7)
    for key in ("origin", "direction"):
        np.testing.assert_allclose(
            place["sitk_stuff"][key], their_place["sitk_stuff"][key], atol=1e-6
        )
    np.testing.assert_array_equal(
        reader.read_seg(label_map)[0], reader.read_seg(str(label))[0]
    )
    assert sitk.ReadImage(images[0]).GetPixelID() == (
        sitk.ReadImage(str(sources[0])).GetPixelID()
    )


@pytest.mark.parametrize(
    ("ending", "colours", "dtype"),
    [
        (".png", 3, np.uint8),
        (".png", 4, np.uint8),
        (".png", 0, np.uint8),
        (".png", 0, np.uint16),
        (".tif", 3, np.uint8),
        (".tif", 0, np.float32),
    ],
)
def test_pictures_are_what_nnunet_reads(
    ending: str, colours: int, dtype: Any, tmp_path: Path
) -> None:
    shape = (20, 24, colours) if colours else (20, 24)
    number = 1 if colours else 2  # of files
    sources = [
        write_picture(noise(shape, dtype, i), tmp_path / f"a_{i:04d}{ending}")
        for i in range(number)
    ]
    label = write_picture(noise((20, 24), np.uint8) % 3, tmp_path / f"a{ending}")
    channels = colours or 2
    images, label_map = imported(sources, label, tmp_path / "out", channels)
    ours, place = SimpleITKIO().read_images(images)
    theirs, their_place = NaturalImage2DIO().read_images([str(s) for s in sources])
    assert ours.shape == (channels, 1, 20, 24)
    np.testing.assert_array_equal(ours, theirs)
    assert tuple(place["spacing"]) == tuple(their_place["spacing"])
    np.testing.assert_array_equal(
        SimpleITKIO().read_seg(label_map)[0], NaturalImage2DIO().read_seg(str(label))[0]
    )


def test_what_is_no_picture_or_volume(tmp_path: Path) -> None:
    volume = tmp_path / "a_0000.tif"
    sitk.WriteImage(sitk.GetImageFromArray(noise((5, 20, 24), np.uint8)), str(volume))
    with pytest.raises(UserError, match="5 pictures: a volume in TIFF is not read"):
        formats.read(volume)
    for name in ("b.mha", "b.nrrd", "b.png"):
        path = tmp_path / name
        path.write_bytes(b"nothing of that kind")
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            formats.read(path)
    vectors = sitk.GetImageFromArray(noise((4, 5, 6, 2), np.uint8), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / "c.mha"))
    with pytest.raises(UserError, match="instead of three axes"):
        formats.read(tmp_path / "c.mha")


@pytest.mark.parametrize("ending", formats.VOLUMES)
def test_volumes_that_are_cut_off(ending: str, tmp_path: Path) -> None:
    path = write_volume(noise((5, 20, 24), np.int16), tmp_path / f"a{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read"):
        formats.read(path)


def test_a_label_map_in_colours_and_one_with_other_numbers(tmp_path: Path) -> None:
    source = write_picture(noise((20, 24), np.uint8), tmp_path / "a_0000.png")
    label = write_picture(noise((20, 24, 3), np.uint8) % 3, tmp_path / "a.png")
    with pytest.raises(UserError, match="is in 3 colours"):
        imported([source], label, tmp_path / "out", 1)
    write_picture(np.full((20, 24), 255, np.uint8), label)
    with pytest.raises(UserError, match=r"the values \[255\], which no label has"):
        imported([source], label, tmp_path / "out", 1)
    with pytest.raises(UserError, match="hold 1 channels instead of 3"):
        imported([source], label, tmp_path / "out", 3)


def pictures(root: Path, channels: int = 3, **files: np.ndarray) -> Path:
    """Three good cases of colour pictures, with other content for some files."""
    names = {str(i): name for i, name in enumerate("RGB"[:channels])}
    nnunet_folder(root, [], channel_names=names, file_ending=".png")
    for seed, case in enumerate("abc"):
        image = noise((20, 24, 3), np.uint8, seed)
        label = noise((20, 24), np.uint8, seed + 10) % 3
        for name, content in ((f"{case}_0000", image), (case, label)):
            folder = root / ("imagesTr" if "_" in name else "labelsTr")
            write_picture(files.get(name, content), folder / f"{name}.png")
    return root


def test_colour_pictures_as_a_cohort(tmp_path: Path) -> None:
    cohort = load_cohort(config("nnunet", pictures(tmp_path)))
    assert cohort.test == ["a", "b", "c"]
    assert cohort.channel_names == ["R", "G", "B"]
    assert cohort.case("a").images == (str(tmp_path / "imagesTr/a_0000.png"),)
    assert cohort.case("a").missing == ()
    assert check_cohort(cohort, 1) == []


def test_problems_of_pictures_are_told(tmp_path: Path) -> None:
    root = pictures(
        tmp_path,
        a_0000=noise((20, 24), np.uint8),
        b=noise((20, 24, 3), np.uint8),
        c=noise((19, 24), np.uint8) % 3,
    )
    problems = {p.case: p for p in check_cohort(load_cohort(config("nnunet", root)), 1)}
    assert "a_0000.png hold 1 channels (grey values" in problems["a"].problem
    assert "without a palette" in problems["b"].how_to_fix
    assert "does not lie on the grid" in problems["c"].problem
    assert "shape 24 19 1 instead of 24 20 1" in problems["c"].problem


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    nnunet_folder(tmp_path, [], file_ending=".mha", **NNUNET_JSON_NO_ENDING)
    for seed, case in enumerate("abc"):
        for i in range(2):
            voxels = noise((5, 20, 24), np.float32, 10 * seed + i)
            if case == "a" and i:
                voxels[2, 3, 4:6] = np.nan
            write_volume(voxels, tmp_path / f"imagesTr/{case}_{i:04d}.mha")
        label = noise((5, 20, 24), np.uint8, seed) % 3
        write_volume(label, tmp_path / f"labelsTr/{case}.mha")
    problems = check_cohort(load_cohort(config("nnunet", tmp_path)), 1)
    assert [problem.case for problem in problems] == ["a"]
    assert "has 2 NaN or infinite voxels" in problems[0].problem


NNUNET_JSON_NO_ENDING: dict[str, Any] = {
    key: value for key, value in NNUNET_JSON.items() if key != "file_ending"
}


def test_files_of_another_ending_are_not_the_data_set_s(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    touch(root / "imagesTr/d_0000.nii.gz", root / "labelsTr/d.nii.gz")
    touch(root / "imagesTr/a_0003.png")
    cohort = load_cohort(config("nnunet", root))
    assert cohort.test == ["a", "b", "c"]
    assert "a error Wrong channel count: a_0003.png" in texts(cohort)


def test_new_cases_in_two_formats(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    new = tmp_path / "new"
    touch(new / "x_0000.png", new / "y_0000.png")
    cohort = load_cohort(config("nnunet", root, new=str(new)))
    assert cohort.new == ["x", "y"]
    assert cohort.case("x").images == (str(new / "x_0000.png"),)
    touch(new / "z_0000.mha")
    with pytest.raises(UserError, match=r"both \.mha and \.png files"):
        load_cohort(config("nnunet", root, new=str(new)))
