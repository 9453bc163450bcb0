"""Folders are read by their listing, cases are chosen by hash, voxels are kept."""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from casesim.cohort import cohort as cohorts
from casesim.cohort.cohort import Case, Cohort, import_case, load_cohort, select
from casesim.errors import UserError

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("CASESIM_SHARED", ROOT.parent / "shared"))
needs_patients = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real patients in {SHARED / 'data'}"
)

MSD_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
}
NNUNET_JSON = {
    "channel_names": {"0": "FLAIR", "1": "T1gd"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "file_ending": ".nii.gz",
}
OLD_BRATS = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}
PHANTOM = {"shape": [16, 24, 24], "spacing": [6.0, 6.0, 5.0], "scanners": 2}


def config(source: str, path: Path | None = None, **keys: Any) -> dict[str, Any]:
    return {
        "source": source,
        "path": None if path is None else str(path),
        "pool": 2,
        "train_cases": 1,
        "held_out": 1,
        "seed": 0,
        "brats": {"labels": OLD_BRATS},
        "phantom": PHANTOM,
        **keys,
    }


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def msd_folder(root: Path, ids: list[str], **changes: Any) -> Path:
    for case in ids:
        touch(root / f"imagesTr/{case}.nii.gz", root / f"labelsTr/{case}.nii.gz")
    (root / "dataset.json").write_text(json.dumps({**MSD_JSON, **changes}))
    return root


def nnunet_folder(root: Path, ids: list[str], **changes: Any) -> Path:
    for case in ids:
        touch(
            root / f"imagesTr/{case}_0000.nii.gz",
            root / f"imagesTr/{case}_0001.nii.gz",
            root / f"labelsTr/{case}.nii.gz",
        )
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({**NNUNET_JSON, **changes}))
    return root


def texts(cohort: Cohort) -> str:
    return "\n".join(f"{p.case} {p.severity} {p.problem}" for p in cohort.problems)


# Selection

IDS = st.lists(st.text("abcXYZ019_-.", min_size=1, max_size=6), unique=True, min_size=3)


@given(IDS, st.data(), st.integers(0, 3))
def test_selection_does_not_depend_on_the_order_of_files(
    ids: list[str], data: st.DataObject, seed: int
) -> None:
    pool = data.draw(st.integers(1, len(ids) - 1))
    held_out = data.draw(st.integers(0, len(ids) - pool))
    shuffled = data.draw(st.permutations(ids))
    assert select(ids, pool, 1, held_out, seed) == select(
        shuffled, pool, 1, held_out, seed
    )


@given(IDS, st.data(), st.integers(0, 3))
def test_selection_is_disjoint_complete_and_grows(
    ids: list[str], data: st.DataObject, seed: int
) -> None:
    pool = data.draw(st.integers(1, len(ids) - 1))
    held_out = data.draw(st.integers(0, len(ids) - pool))
    train = data.draw(st.integers(1, pool))
    chosen = select(ids, pool, train, held_out, seed)
    assert not chosen.problems
    assert (len(chosen.pool), len(chosen.held_out)) == (pool, held_out)
    assert len(chosen.train) == train
    assert set(chosen.train) <= set(chosen.pool)
    assert not set(chosen.pool) & set(chosen.held_out)
    assert {*chosen.pool, *chosen.held_out} <= set(ids)
    if pool + held_out < len(ids):
        larger_pool = select(ids, pool + 1, train, held_out, seed)
        assert set(chosen.pool) < set(larger_pool.pool)
        assert chosen.train == larger_pool.train
        assert chosen.held_out == larger_pool.held_out
        more_held_out = select(ids, pool, train, held_out + 1, seed)
        assert set(chosen.held_out) < set(more_held_out.held_out)
        assert chosen.pool == more_held_out.pool
    if train < pool:
        more_train = select(ids, pool, train + 1, held_out, seed)
        assert set(chosen.train) < set(more_train.train)


def test_seeds_choose_differently() -> None:
    ids = [f"case_{i:03d}" for i in range(50)]
    assert select(ids, 20, 5, 5, 0).pool != select(ids, 20, 5, 5, 1).pool


def test_numbers_fill_up_around_lists() -> None:
    ids = [f"case_{i}" for i in range(8)]
    chosen = select(ids, 6, ["case_3"], ["case_1", "case_2"], 0)
    assert set(chosen.pool) == set(ids) - {"case_1", "case_2"}
    assert chosen.train == ("case_3",)
    chosen = select(ids, ["case_1", "case_2"], 2, 6, 0)
    assert set(chosen.held_out) == set(ids) - {"case_1", "case_2"}


def test_unknown_ids_are_all_named_with_close_matches() -> None:
    with pytest.raises(UserError) as caught:
        select(["BRATS_001", "BRATS_002", "x"], ["BRATS_01", "x"], ["zz"], ["BRATS"], 0)
    message = str(caught.value)
    assert "cohort.pool: BRATS_01 (did you mean BRATS_001" in message
    assert "cohort.train_cases: zz" in message
    assert "cohort.held_out: BRATS" in message
    assert "cohort.pool: x" not in message


@pytest.mark.parametrize(
    ("pool", "train", "held_out", "message"),
    [
        (["a", "b"], ["a"], ["b", "c"], "In cohort.pool and in cohort.held_out: b"),
        (["a", "b"], ["a", "c"], 0, "cohort.train_cases, but not in the pool: c"),
        (["a"], 2, 0, "cohort.train_cases is 2, but cohort.pool only 1"),
    ],
)
def test_contradictions_are_refused(
    pool: Any, train: Any, held_out: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        select(["a", "b", "c"], pool, train, held_out, 0)


def test_too_few_cases_are_a_problem_not_an_end() -> None:
    chosen = select(["a", "b", "c"], 4, 4, 2, 0)
    assert (len(chosen.pool), len(chosen.train), len(chosen.held_out)) == (3, 3, 0)
    (problem,) = chosen.problems
    assert problem.severity == "error"
    assert "4 pool cases" in problem.problem
    assert "2 held-out cases" in problem.problem
    assert "3 usable" in problem.problem


def test_an_id_named_twice_is_a_problem() -> None:
    chosen = select(["a", "b"], ["a", "a", "b"], 1, 0, 0)
    assert chosen.pool == ("a", "b")
    assert [p.problem for p in chosen.problems] == [
        "cohort.pool names the case 2 times"
    ]


# Folders


def test_msd(tmp_path: Path) -> None:
    ids = ["BRATS_001", "BRATS_002", "BRATS_003"]
    root = msd_folder(tmp_path, ids)
    touch(root / "imagesTr/._BRATS_001.nii.gz", root / "imagesTr/.DS_Store")
    touch(root / "imagesTs/BRATS_009.nii.gz", root / "imagesTr/notes.txt")
    cohort = load_cohort(config("msd", root))
    assert cohort.test == ids
    assert cohort.channel_names == ["FLAIR", "T1w", "T1gd", "T2w"]
    assert cohort.labels == {
        "background": 0,
        "edema": 1,
        "non-enhancing_tumor": 2,
        "enhancing_tumour": 3,
    }
    assert cohort.label_map == {0: 0, 1: 1, 2: 2, 3: 3}
    assert cohort.foreground_labels[0] == "edema"
    assert not cohort.problems
    case = cohort.case("BRATS_001")
    assert case.images == (str(root / "imagesTr/BRATS_001.nii.gz"),)
    assert case.label == str(root / "labelsTr/BRATS_001.nii.gz")
    assert sorted([*cohort.pool, *cohort.held_out]) == ids
    assert set(cohort.train) <= set(cohort.pool)


def test_files_that_are_missing_are_not_declared(tmp_path: Path) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"])
    (root / "labelsTr/a.nii.gz").unlink()
    (root / "imagesTr/b.nii.gz").unlink()
    (root / "imagesTr/c.nii.gz").unlink()
    (root / "imagesTr/c.nii.gz").symlink_to(root / "gone.nii.gz")
    cohort = load_cohort(config("msd", root))
    assert cohort.test == ["a", "b", "c"]
    existing = {case.id: case.existing_sources for case in cohort.cases}
    assert existing == {
        "a": (str(root / "imagesTr/a.nii.gz"),),
        "b": (str(root / "labelsTr/b.nii.gz"),),
        "c": (str(root / "labelsTr/c.nii.gz"),),
    }


def test_msd_list_of_training_cases_is_compared(tmp_path: Path) -> None:
    entries = [{"image": f"./imagesTr/{i}.nii.gz"} for i in ("a", "a", "b", "c", "zz")]
    root = msd_folder(tmp_path, ["a", "b", "c"], training=entries)
    cohort = load_cohort(config("msd", root))
    assert "a error Duplicate case id" in texts(cohort)
    assert "(cohort) warning" in texts(cohort)
    assert "1 cases that have no file: zz" in texts(cohort)


def test_nnunet(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path, ["a", "b_0001", "c"])
    (root / "imagesTr/c_0001.nii.gz").unlink()
    touch(root / "imagesTr/a_0002.nii.gz", root / "imagesTr/stray.nii.gz")
    cohort = load_cohort(config("nnunet", root))
    assert cohort.test == ["a", "b_0001", "c"]
    assert cohort.channel_names == ["FLAIR", "T1gd"]
    assert cohort.case("b_0001").images[1] == str(root / "imagesTr/b_0001_0001.nii.gz")
    assert cohort.case("c").missing == (str(root / "imagesTr/c_0001.nii.gz"),)
    assert "a error Wrong channel count: a_0002.nii.gz" in texts(cohort)
    assert "stray.nii.gz is no channel" in texts(cohort)


def test_nnunet_cases_listed_in_dataset_json(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "raw", [])
    other = nnunet_folder(tmp_path / "other", ["x", "y", "z"])
    dataset = {
        name: {
            "images": [f"../other/imagesTr/{name}_{i:04d}.nii.gz" for i in (0, 1)],
            "label": str(other / f"labelsTr/{name}.nii.gz"),
        }
        for name in "xyz"
    }
    dataset["x"]["images"] = dataset["x"]["images"][:1]
    (other / "labelsTr/z.nii.gz").unlink()
    (root / "dataset.json").write_text(json.dumps({**NNUNET_JSON, "dataset": dataset}))
    cohort = load_cohort(config("nnunet", root))
    assert cohort.case("y").images[0] == str(other / "imagesTr/y_0000.nii.gz")
    assert cohort.case("z").missing == (str(other / "labelsTr/z.nii.gz"),)
    assert "x error Wrong channel count" in texts(cohort)


STYLES = {
    "HGG/Brats17_2013_0_1": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "LGG/Brats18_X_1_1": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "BraTS20_Training_001": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "BraTS-GLI-00005-100": ["-t2f", "-t1n", "-t1c", "-t2w", "-seg"],
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_brats_in_all_its_styles(tmp_path: Path, ending: str) -> None:
    for folder, ends in STYLES.items():
        name = folder.rpartition("/")[2]
        touch(*(tmp_path / folder / f"{name}{end}{ending}" for end in ends))
        touch(tmp_path / folder / f"._{name}{ends[0]}{ending}")
    touch(tmp_path / "name_mapping.csv")
    cohort = load_cohort(config("brats", tmp_path, pool=3))
    assert not cohort.problems
    assert cohort.channel_names == ["FLAIR", "T1w", "T1gd", "T2w"]
    assert cohort.label_map == {0: 0, 2: 1, 1: 2, 4: 3}
    assert cohort.labels["enhancing_tumour"] == 3
    for folder, ends in STYLES.items():
        name = folder.rpartition("/")[2]
        expected = [str(tmp_path / folder / f"{name}{end}{ending}") for end in ends]
        case = cohort.case(name)
        assert [*case.images, case.label] == expected
        assert not case.missing


def test_brats_files_missing_ambiguous_or_misnamed(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3"):
        ends = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")
        touch(*(tmp_path / name / f"{name}{end}.nii.gz" for end in ends))
    touch(tmp_path / "p1/p1-t2f.nii")
    (tmp_path / "p2/p2-seg.nii.gz").rename(tmp_path / "p2/W39_Segm.nii.gz")
    (tmp_path / "empty").mkdir()
    cohort = load_cohort(config("brats", tmp_path))
    assert "p1 error" in texts(cohort)
    assert "p1-t2f.nii and p1-t2f.nii.gz" in texts(cohort)
    assert cohort.case("p2").missing == (str(tmp_path / "p2/p2-seg.nii.gz"),)
    assert "W39_Segm.nii.gz" in texts(cohort)
    assert "empty warning" in texts(cohort)


def test_brats_labels_are_numbered_in_their_order(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3"):
        touch(tmp_path / name / f"{name}_flair.nii.gz")
    labels = {"core": [1, 4], "edema": [2]}
    cohort = load_cohort(config("brats", tmp_path, brats={"labels": labels}))
    assert cohort.label_map == {0: 0, 1: 1, 4: 1, 2: 2}
    assert cohort.labels == {"background": 0, "core": 1, "edema": 2}
    twice = {"core": [1, 2], "edema": [2]}
    with pytest.raises(UserError, match="number 2 of 'edema' is taken"):
        load_cohort(config("brats", tmp_path, brats={"labels": twice}))


def test_phantom() -> None:
    small = config("phantom", pool=4, train_cases=3, held_out=2)
    small["phantom"] = {**PHANTOM, "defects": {"swapped_labels": 2}, "controls": {}}
    cohort = load_cohort(small)
    assert cohort.pool == [f"phantom_00{i}" for i in (1, 2, 3, 4)]
    assert cohort.held_out == ["phantom_005", "phantom_006"]
    planted = {case.id: case.planted for case in cohort.cases if case.planted}
    assert set(planted) <= set(cohort.train)
    assert list(planted.values()) == ["swapped_labels"] * 2
    assert cohort.cases[0].existing_sources == ()
    assert not cohort.problems
    listed = load_cohort(config("phantom", pool=["phantom_002", "phantom_007"]))
    assert listed.pool == ["phantom_002", "phantom_007"]
    assert listed.held_out == ["phantom_006"]
    with pytest.raises(UserError, match=r"phantom_7 \(did you mean"):
        load_cohort(config("phantom", pool=["phantom_7"]))


def test_unsafe_and_duplicate_ids_are_left_out_and_named(tmp_path: Path) -> None:
    unsafe = ["gliöm", "with space", "-dash", "x" * 101, "semi;colon", "good_seg"]
    ids = [*unsafe, "Alike", "alike", "twice", "good", "fine", "well"]
    root = msd_folder(tmp_path, ids)
    touch(root / "imagesTr/twice.nii")
    cohort = load_cohort(config("msd", root, pool=["good", "fine", "alike"]))
    assert cohort.test == ["fine", "good", "well"]
    assert {p.severity for p in cohort.problems} == {"error"}
    assert sorted(p.case for p in cohort.problems) == sorted(
        [*unsafe, "Alike", "twice"]
    )
    assert "Alike, alike differs from another only by case" in texts(cohort)
    assert "gliöm error The case id is not plain ASCII" in texts(cohort)


def test_two_patients_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for name in ("HGG/p1", "LGG/p1", "LGG/p2", "HGG/p3"):
        touch(tmp_path / name / f"{name[4:]}_flair.nii")
    cohort = load_cohort(config("brats", tmp_path, pool=1))
    assert cohort.test == ["p2", "p3"]
    assert "Duplicate case id: p1 is there" in texts(cohort)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"0": "background", "2": "tumour"}}, "without gaps"),
        ({"labels": {"0": "air", "1": "tumour"}}, "must be called 'background'"),
        ({"labels": {"0": "background", "1": "mean"}}, "reserved"),
        ({"labels": {"0": "background", "1": "a b", "2": "a/b"}}, "too much like"),
        ({"labels": ["background"]}, "must be an object"),
        ({"modality": {}}, "must name the channels"),
        ({"modality": {"1": "FLAIR"}}, "must name the channels"),
        ({"modality": ["FLAIR"]}, "must name the channels"),
    ],
)
def test_unusable_msd_json(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"], **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_cohort(config("msd", root))
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "is a region"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "'ignore'"),
        ({"labels": {"background": 0, "a": "one"}}, "'one'"),
        ({"file_ending": ".mha"}, "Convert the images"),
    ],
)
def test_unusable_nnunet_json(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = nnunet_folder(tmp_path, ["a", "b", "c"], **changes)
    with pytest.raises(UserError, match=message):
        load_cohort(config("nnunet", root))


def test_folders_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs cohort\.path"):
        load_cohort(config("msd"))
    with pytest.raises(UserError, match="is not a folder"):
        load_cohort(config("msd", tmp_path / "none"))
    with pytest.raises(UserError, match=r"has no dataset\.json"):
        load_cohort(config("nnunet", tmp_path))
    with pytest.raises(UserError, match=r"No usable case .*\nExpected: .*_flair"):
        load_cohort(config("brats", tmp_path))
    msd = msd_folder(tmp_path / "msd", ["ü"])
    with pytest.raises(UserError, match=r"set cohort\.source: msd"):
        load_cohort(config("nnunet", msd))
    with pytest.raises(UserError, match=r"No usable case .*\n.* not plain ASCII"):
        load_cohort(config("msd", msd))
    nnunet = nnunet_folder(tmp_path / "nnunet", ["a"])
    with pytest.raises(UserError, match=r"set cohort\.source: nnunet"):
        load_cohort(config("msd", nnunet))
    (msd / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset.json is not readable JSON: .*line 1"):
        load_cohort(config("msd", msd))


def test_five_hundred_cases_are_listed_without_opening_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"BRATS_{i:03d}" for i in range(500)]
    random.Random(1).shuffle(ids)
    root = msd_folder(tmp_path, ids)
    calls = []
    stat = os.stat

    def count(*args: Any, **options: Any) -> os.stat_result:
        calls.append(args)
        return stat(*args, **options)

    monkeypatch.setattr(os, "stat", count)
    cohort = load_cohort(config("msd", root, pool=400, train_cases=50, held_out=100))
    assert (len(cohort.pool), len(cohort.train), len(cohort.held_out)) == (400, 50, 100)
    assert not cohort.problems
    # Zero-byte files pass: none was opened. Nor was each asked for its status.
    assert len(calls) < 20


def test_parsing_imports_the_standard_library_only() -> None:
    code = (
        "import sys, casesim.cohort as c;"
        "assert not {'numpy', 'nibabel', 'SimpleITK', 'torch'} & set(sys.modules)"
    )
    scripts = str(ROOT / "workflow_scripts")
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONPATH": scripts},
    )


def test_records_and_table(tmp_path: Path) -> None:
    cohort = load_cohort(config("msd", msd_folder(tmp_path, ["a", "b", "c"])))
    case = replace(cohort.cases[0], planted="swapped_labels", missing=("x",))
    assert Case.from_record(json.loads(json.dumps(case.as_record()))) == case
    cohorts.write_cohort(cohort, "results/raw", tmp_path / "cohort.tsv")
    with (tmp_path / "cohort.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    assert list(rows[0]) == [
        "case",
        "image",
        "label",
        "role",
        "train_case",
        "source",
        "planted",
    ]
    assert rows[1]["image"] == "results/raw/imagesTr/b_0000.nii.gz"
    assert rows[1]["label"] == "results/raw/labelsTr/b.nii.gz"
    assert [r["case"] for r in rows if r["role"] == "held_out"] == cohort.held_out
    assert [r["case"] for r in rows if r["train_case"] == "true"] == cohort.train


# Import

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


@pytest.mark.parametrize(
    ("defects", "controls", "planted"),
    [
        ({}, {"no_enhancement": 1}, False),
        ({"swapped_labels": 1}, {}, True),
        ({"corrupted_channel": 1}, {}, True),
    ],
)
def test_defects_are_planted_but_controls_are_none(
    defects: dict[str, int], controls: dict[str, int], planted: bool
) -> None:
    phantoms = {**PHANTOM, "defects": defects, "controls": controls}
    cohort = load_cohort(config("phantom", train_cases=2, phantom=phantoms))
    assert cohort.has_planted_defects is planted


def test_phantoms_are_written_as_generated(tmp_path: Path) -> None:
    from casesim.cohort import phantom

    cohort = load_cohort(config("phantom"))
    case = cohort.cases[0]
    images_out, label_out = outputs(tmp_path, 4)
    import_case(case, cohort.label_map, images_out, label_out, PHANTOM, 5)
    made = phantom.generate(case.id, PHANTOM, "", 5)
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


# Refits


def test_refits_are_drawn_by_id_and_more_of_them_contain_fewer() -> None:
    train = [f"case_{i:02d}" for i in range(30)]
    few, more = (cohorts.choose_refits(train, n, 1) for n in (5, 12))
    assert len(few) == 5
    assert set(few) < set(more) < set(train)
    assert cohorts.choose_refits(train[::-1], 5, 1) == few
    assert cohorts.choose_refits(train, 5, 2) != few
    assert cohorts.choose_refits(train, 0, 1) == []
    assert cohorts.choose_refits(train, ["case_03", "case_01"], 1) == [
        "case_01",
        "case_03",
    ]


def test_only_train_cases_can_be_refitted() -> None:
    with pytest.raises(UserError, match=r"stability\.refits.*: x\. .*train_cases"):
        cohorts.choose_refits(["a", "b"], ["a", "x"], 1)
