"""A spoilt channel is found and named; an odd scanner is not taken for one."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import roc_auc_score

from casesim.cohort import channels as channels_module
from casesim.cohort.channels import compare, describe, describe_cases
from casesim.cohort.phantom.catalogue import CHANNEL_NAMES, case_ids
from casesim.cohort.phantom.patient import generate
from casesim.similarity.kinds import BAD_CHANNEL

PLANTED = ["corrupted_channel"] * 4 + ["odd_scanner", "small_lesion", "multifocal"]
PHANTOM = {"shape": [16, 40, 40], "spacing": [4.0, 4.0, 4.0], "scanners": 3}


@pytest.fixture(scope="module")
def cohort() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = [*PLANTED, *[""] * 17]
    cases = {}
    for case, planted in zip(case_ids(len(names)), names, strict=True):
        phantom = generate(case, PHANTOM, planted, 3)
        cases[case] = phantom.image, phantom.label
    return cases


@pytest.fixture(scope="module")
def described(cohort: dict[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    parts = [
        describe(image, label, CHANNEL_NAMES).assign(case=case)
        for case, (image, label) in cohort.items()
    ]
    return pd.concat(parts, ignore_index=True)


def with_another(
    table: pd.DataFrame, case: str, image: np.ndarray, label: np.ndarray
) -> pd.DataFrame:
    """The description of the cohort where a case has another image."""
    own = describe(image, label, CHANNEL_NAMES).assign(case=case)
    return pd.concat([table[table["case"] != case], own], ignore_index=True)


def worst(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table.groupby("case")["score"].idxmax()].set_index("case")


def test_spoilt_channels_stand_out_and_controls_do_not(described: pd.DataFrame) -> None:
    table = worst(compare(described))
    spoilt = np.arange(len(table)) < 4
    assert roc_auc_score(spoilt, table["score"]) >= 0.9
    assert not (table["score"][5:] >= BAD_CHANNEL).any()


@pytest.mark.parametrize("channel", range(4))
def test_the_spoilt_channel_is_named(
    cohort: dict[str, tuple[np.ndarray, np.ndarray]],
    described: pd.DataFrame,
    channel: int,
) -> None:
    case = "phantom_020"
    image, label = cohort[case]
    spoilt = image.copy()
    inside = spoilt[channel] > 0
    spoilt[channel][inside] = spoilt[channel][inside].max() - spoilt[channel][inside]
    table = worst(compare(with_another(described, case, spoilt, label)))
    assert table.loc[case, "channel"] == CHANNEL_NAMES[channel]


def test_gain_and_offset_change_nothing(
    cohort: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    image, label = cohort["phantom_010"]
    scaled = image * np.array([2.0, 0.5, 3.0, 1.0])[:, None, None, None]
    first, second = (
        describe(x, label, CHANNEL_NAMES)["value"].to_numpy() for x in (image, scaled)
    )
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_a_channel_without_contrast_is_as_unusual_as_can_be(
    cohort: dict[str, tuple[np.ndarray, np.ndarray]], described: pd.DataFrame
) -> None:
    image, label = cohort["phantom_012"]
    flat = image.copy()
    flat[2] = 0
    table = compare(with_another(described, "phantom_012", flat, label))
    found = worst(table).loc["phantom_012"]
    assert found["channel"] == "T1gd"
    assert found["score"] >= BAD_CHANNEL


def test_a_channel_without_contrast_in_any_case_is_unlike_none(
    cohort: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Zeros in the place of a sequence that nobody has: nnU-Net trains with them."""
    parts = []
    for case, (image, label) in list(cohort.items())[:8]:
        flat = image.copy()
        flat[2] = 0
        parts.append(describe(flat, label, CHANNEL_NAMES).assign(case=case))
    table = compare(pd.concat(parts, ignore_index=True))
    own = table[table["channel"] == CHANNEL_NAMES[2]]
    assert (own[["distance", "score", "z"]] == 0).all(axis=None)
    assert table["score"].notna().all()
    assert worst(table)["channel"].ne(CHANNEL_NAMES[2]).all()


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (40, 160, 160)), (1, (24, 64, 64)), (4, (24, 64, 64))]
)
def test_memory_is_not_more_than_told(
    tmp_path: Path, channels: int, shape: tuple[int, ...]
) -> None:
    """As far as numpy tells, which does not see all that scipy and SimpleITK take."""
    names = [f"T{i}" for i in range(channels)]
    draw = np.random.default_rng(0)
    arrays = [draw.normal(100, 20, shape).astype(np.float32) for _ in names]
    label = np.zeros(arrays[0].shape, np.uint8)
    paths = [str(tmp_path / f"{i}.nii.gz") for i in range(channels + 1)]
    for path, voxels in zip(paths[:-1], arrays, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), path)
    sitk.WriteImage(sitk.GetImageFromArray(label), paths[-1])
    told = channels_module._memory(label.size, channels)
    tracemalloc.start()
    describe_cases({"a": (paths[:-1], paths[-1])}, names, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * told <= peak <= told


def test_the_order_of_cases_changes_nothing(described: pd.DataFrame) -> None:
    turned = described.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        compare(described), compare(turned), check_exact=False, rtol=1e-9
    )


def test_one_channel_is_compared_with_the_cohort_alone() -> None:
    draw = np.random.default_rng(0)
    images = [draw.normal(100, 10, (1, 8, 16, 16)) for _ in range(12)]
    images[5] = images[5].cumsum(axis=3)
    empty = np.zeros((8, 16, 16), np.uint8)
    parts = [
        describe(image, empty, ["CT"]).assign(case=f"{i:02d}")
        for i, image in enumerate(images)
    ]
    table = compare(pd.concat(parts, ignore_index=True)).set_index("case")
    assert table["score"].idxmax() == "05"
    usual = table["distance"].median()
    np.testing.assert_allclose(table["score"], table["distance"] / (1 + usual))


def test_of_one_channel_sound_images_are_not_bad() -> None:
    """Numbers that only vary: their distance alone would accuse one in ten."""
    draw = np.random.default_rng(0)
    numbers = ("skewness", "tails", "noise", "edges")
    rows = [
        (f"{case:03d}", "CT", number, value)
        for number in numbers
        for case, value in enumerate(draw.normal(size=200))
    ]
    columns = ["case", "channel", "number", "value"]
    table = compare(pd.DataFrame(rows, columns=columns))
    assert (table["distance"] >= BAD_CHANNEL).mean() > 0.04
    assert not (table["score"] >= BAD_CHANNEL).any()
    # But one that is far from all others is.
    odd = [("odd", "CT", number, 8.0) for number in numbers]
    table = compare(pd.DataFrame([*rows, *odd], columns=columns))
    assert table.loc[table["score"] >= BAD_CHANNEL, "case"].tolist() == ["odd"]


def test_files_are_described_as_arrays_are(
    tmp_path: object, cohort: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    image, label = cohort["phantom_001"]
    paths = [f"{tmp_path}/{i}.nii.gz" for i in range(5)]
    for path, array in zip(paths, [*image, label], strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(array), path)
    table = describe_cases({"a": (paths[:4], paths[4])}, CHANNEL_NAMES, 2)
    expected = describe(image, label, CHANNEL_NAMES)
    np.testing.assert_allclose(table["value"], expected["value"])


def test_channels_of_one_name_get_their_numbers() -> None:
    """nnU-Net chooses by name, so that several channels may be called `noNorm`."""
    images = np.random.default_rng(0).normal(100, 20, (3, 2, 8, 20, 20))
    label = np.zeros(images.shape[2:], np.uint8)
    parts = [
        describe(image, label, ["MRI", "MRI"]).assign(case=str(case))
        for case, image in enumerate(images)
    ]
    table = compare(pd.concat(parts, ignore_index=True))
    assert table["channel"].tolist() == ["MRI (0)", "MRI (1)"] * 3
