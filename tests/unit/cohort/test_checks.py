"""Every check finds what it is for, names the file, and leaves good cases alone."""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from casesim.cohort import checks
from casesim.cohort.checks import check_cohort
from casesim.cohort.cohort import Cohort, Problem, load_cohort

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("CASESIM_SHARED", ROOT.parent / "shared"))
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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "raw")


def only(problems: list[Problem], severity: str = "error") -> Problem:
    assert len(problems) == 1, checks.format_checks(problems)
    assert problems[0].severity == severity
    return problems[0]


def cut(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])


def test_good_cases_have_no_problem(folder: Folder) -> None:
    assert folder.check() == []


@pytest.mark.parametrize("target", ["image", "label"])
def test_missing_file(folder: Folder, target: str) -> None:
    path = getattr(folder, target)(2)
    path.unlink()
    problem = only(folder.check())
    assert problem.case == "case_2"
    assert problem.problem == f"{path} is missing."


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("target", ["image", "label"])
def test_truncated_gzip(folder: Folder, target: str, kept: float) -> None:
    path = getattr(folder, target)(1)
    cut(path, kept)
    problem = only(folder.check())
    assert f"{path} is cut off: a truncated gzip file" in problem.problem
    assert "again" in problem.how_to_fix


def test_only_the_last_bytes_of_the_gzip_are_missing(folder: Folder) -> None:
    """All voxels are there, but not the checksum: readers do not notice."""
    path = folder.image(1)
    path.write_bytes(path.read_bytes()[:-8])
    assert nib.load(path).get_fdata().shape == SHAPE  # type: ignore[attr-defined]
    assert "cut off" in only(folder.check()).problem


def damaged(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: b"", "is empty"),
        (lambda path: b"hello, world", "is damaged, or no gzip file"),
        (damaged, "is damaged, or no gzip file"),
        (lambda path: gzip.compress(b"x" * 5000), "is not a NIfTI file"),
        (
            lambda path: gzip.compress(gzip.decompress(path.read_bytes())[:-100]),
            "fewer voxels",
        ),
        (lambda path: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer"),
    ],
)
def test_unreadable_content(folder: Folder, content: Any, message: str) -> None:
    path = folder.image(3, 1)
    path.write_bytes(content(path))
    problem = only(folder.check())
    assert problem.problem.startswith(str(path))
    assert message in problem.problem


def test_file_that_is_a_dangling_link(folder: Folder) -> None:
    folder.label(0).unlink()
    folder.label(0).symlink_to(folder.root / "gone")
    assert "is a link to nowhere" in only(folder.check()).problem


def test_skewed_axes_are_refused_as_simpleitk_refuses_them(folder: Folder) -> None:
    skewed = affine_of()
    skewed[0, 1] = 0.7
    image = nib.Nifti1Image(image_of(0), skewed)
    image.set_qform(affine_of(), 0)
    nib.save(image, folder.image(0))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(folder.image(0)))
    assert "is refused by SimpleITK" in only(folder.check()).problem


@pytest.mark.parametrize("shape", [(*SHAPE, 2), (9, 8), (*SHAPE, 1, 3)])
def test_wrong_channel_count_in_a_channel_file(folder: Folder, shape: Any) -> None:
    save(folder.image(0), np.ones(shape, np.int16))
    problem = only(folder.check())
    assert problem.problem.startswith(f"Wrong channel count: {folder.image(0)}")


def test_wrong_channel_count_by_surplus_file(folder: Folder) -> None:
    save(folder.image(0, 2), image_of(0, 2))
    assert "Wrong channel count: case_0_0002.nii.gz" in only(folder.check()).problem


def test_label_map_of_four_dimensions(folder: Folder) -> None:
    save(folder.label(0), np.ones((*SHAPE, 2), np.uint8))
    assert "has 4 dimensions" in only(folder.check()).problem


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted(folder: Folder, value: float) -> None:
    voxels = image_of(0).astype(np.float32)
    voxels[4, 4, 2:5] = value
    save(folder.image(0), voxels)
    problem = only(folder.check())
    assert problem.problem == f"{folder.image(0)} (FLAIR) has 3 NaN or infinite voxels."
    label = label_of(1).astype(np.float32)
    label[0, 0, 0] = value
    save(folder.label(1), label)
    assert f"{folder.label(1)} has 1 NaN" in folder.check()[1].problem


def moved(**changes: float) -> NDArray[Any]:
    affine = affine_of()
    affine[0, 3] += changes.get("origin", 0)
    affine[1, 1] *= changes.get("spacing", 1)
    if "angle" in changes:
        c, s = np.cos(changes["angle"]), np.sin(changes["angle"])
        affine[:2, :2] = affine[:2, :2] @ np.array([[c, -s], [s, c]])
    return affine


@pytest.mark.parametrize("target", ["image", "label"])
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"origin": 0.5}, "origin (mm) -10.5"),
        ({"spacing": 1.01}, "spacing (mm) 1 1.01 1 instead of 1 1 1"),
        ({"angle": 0.01}, "direction"),
        ({"shape": 1}, "shape 8 8 7 instead of 9 8 7"),
    ],
)
def test_grids_that_disagree(
    folder: Folder, target: str, changes: dict[str, float], word: str
) -> None:
    path = folder.image(1, 1) if target == "image" else folder.label(1)
    voxels = image_of(1, 1) if target == "image" else label_of(1)
    voxels = voxels[1:] if "shape" in changes else voxels
    save(path, voxels, moved(**changes))
    problem = only(folder.check())
    assert problem.problem.startswith(
        f"{path} does not lie on the grid of {folder.image(1)}: "
    )
    assert word in problem.problem
    assert "CopyInformation" in problem.how_to_fix


def test_grids_that_differ_by_rounding_agree(folder: Folder) -> None:
    save(folder.label(1), label_of(1), moved(origin=1e-4, spacing=1 + 1e-6, angle=1e-5))
    assert folder.check() == []


def test_label_values_outside_the_declared(folder: Folder) -> None:
    label = label_of(0).astype(np.int16)
    label[2, 2, 2:4] = 7
    label[2, 3, 2] = -1
    save(folder.label(0), label)
    problem = only(folder.check())
    assert "outside the declared ones (0, 1, 2): -1 (1 voxels), 7 (2 voxels)" in (
        problem.problem
    )
    assert "dataset.json" in problem.how_to_fix


def test_label_values_that_are_no_integers(folder: Folder) -> None:
    label = label_of(0).astype(np.float32)
    label[2, 2, 2:4] = 0.5
    save(folder.label(0), label)
    assert "no integers: 0.5" in only(folder.check()).problem


def test_label_map_stored_as_floats_is_fine(folder: Folder) -> None:
    save(folder.label(0), label_of(0).astype(np.float64))
    assert folder.check() == []


def test_empty_label_map_in_every_role(folder: Folder) -> None:
    for case in range(6):
        save(folder.label(case), np.zeros(SHAPE, np.uint8))
    problems = folder.check()
    assert [p.case for p in problems] == [f"case_{case}" for case in range(6)]
    assert {p.severity for p in problems} == {"error"}
    assert all("is an empty label map" in p.problem for p in problems)


def test_no_brain_voxels(folder: Folder) -> None:
    save(folder.image(4, 0), np.zeros(SHAPE, np.int16))
    save(folder.image(4, 1), np.full(SHAPE, 3, np.int16))
    assert only(folder.check()).problem.startswith("No brain voxels")


def test_one_constant_channel(folder: Folder) -> None:
    save(folder.image(4, 1), np.zeros(SHAPE, np.int16))
    problem = only(folder.check(), "warning")
    assert "(T1w) is constant: it has the value 0" in problem.problem


def test_duplicate_images_whatever_type_they_are_stored_as(folder: Folder) -> None:
    for channel in range(2):
        save(folder.image(2, channel), image_of(5, channel).astype(np.float32))
    problem = only(folder.check())
    assert "case_2 and case_5 have the same voxels in FLAIR, T1w" in problem.problem


def test_one_channel_of_another_case(folder: Folder) -> None:
    save(folder.image(2, 1), image_of(5, 1))
    assert "case_2 and case_5 have the same voxels in T1w" in (
        only(folder.check()).problem
    )


def test_one_channel_twice_in_a_case(folder: Folder) -> None:
    save(folder.image(2, 1), image_of(2, 0))
    problem = only(folder.check(), "warning")
    assert "The channels FLAIR, T1w are the same" in problem.problem


def test_identical_label_maps(folder: Folder) -> None:
    save(folder.label(0), label_of(1))
    problem = only(folder.check(), "warning")
    assert "case_0 and case_1 have the same label map" in problem.problem
    tiny = np.zeros(SHAPE, np.uint8)
    tiny[4, 4, 4] = 1
    save(folder.label(0), tiny)
    save(folder.label(1), tiny)
    assert folder.check() == []


def test_label_outside_the_brain(folder: Folder) -> None:
    label = label_of(0)
    label[0, 0, :5] = 1
    save(folder.label(0), label)
    problem = only(folder.check(), "warning")
    assert "labels 5 voxels outside the brain" in problem.problem


def test_different_spacings(folder: Folder) -> None:
    for channel in range(2):
        save(folder.image(3, channel), image_of(3, channel), affine_of(2.0))
    save(folder.label(3), label_of(3), affine_of(2.0))
    problem = only(folder.check(), "warning")
    assert "1 x 1 x 1 mm in 5" in problem.problem
    assert "2 x 2 x 2 mm in 1 (case_3)" in problem.problem


def test_msd_channel_count_and_nan(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "core"},
    }
    for case in range(4):
        voxels = np.stack([image_of(case, c) for c in range(2)], -1)
        save(tmp_path / f"imagesTr/case_{case}.nii.gz", voxels.astype(np.float32))
        save(tmp_path / f"labelsTr/case_{case}.nii.gz", label_of(case))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    config = {
        **{"source": "msd", "path": str(tmp_path), "seed": 0},
        **{"pool": 3, "train_cases": 3, "held_out": 1},
    }
    assert check_cohort(load_cohort(config), 1) == []
    save(tmp_path / "imagesTr/case_0.nii.gz", image_of(0))
    voxels = np.stack([image_of(1, c) for c in range(2)], -1).astype(np.float32)
    voxels[4, 4, 4, 1] = np.nan
    save(tmp_path / "imagesTr/case_1.nii.gz", voxels)
    first, second = check_cohort(load_cohort(config), 1)
    assert first.problem.startswith("Wrong channel count")
    assert "so 1 channels, but dataset.json names 2" in first.problem
    assert "(channel T1w) has 1 NaN" in second.problem


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ([0, 1, 2, 3], "enhancing_tumour: [3]}"),
        ([0, 1, 2, 3, 4], "enhancing_tumour: [3], resection_cavity: [4]}"),
        ([0, 1, 2, 9], "give the label a name in cohort.brats.labels"),
    ],
)
def test_brats_labels_of_other_years(
    tmp_path: Path, found: list[int], hint: str
) -> None:
    for case in range(3):
        name = f"BraTS-GLI-0000{case}-000"
        for i, end in enumerate(("t2f", "t1n", "t1c", "t2w")):
            save(tmp_path / name / f"{name}-{end}.nii.gz", image_of(case, i))
        label = np.array(found, np.uint8)[image_of(case, 9) % len(found)]
        label[:2] = 0
        save(tmp_path / name / f"{name}-seg.nii.gz", label)
    labels = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}
    config = {
        **{"source": "brats", "path": str(tmp_path), "seed": 0},
        **{"pool": 2, "train_cases": 2, "held_out": 1, "brats": {"labels": labels}},
    }
    problems = check_cohort(load_cohort(config), 1)
    assert len(problems) == 3
    assert all(p.how_to_fix.rstrip(".").endswith(hint) for p in problems)


def break_everything(folder: Folder) -> list[str]:
    """One cohort with all that can be wrong; what the list must say, in any order."""
    folder.image(0, 1).unlink()
    cut(folder.label(0), 0.5)
    voxels = image_of(1).astype(np.float32)
    voxels[1, 1, 1] = np.inf
    save(folder.image(1), voxels)
    save(folder.label(1), label_of(1) * 4, moved(origin=3))
    save(folder.image(2), image_of(2)[2:])
    save(folder.label(2), np.zeros(SHAPE, np.uint8))
    for channel in range(2):
        save(folder.image(3, channel), np.zeros(SHAPE, np.int16))
        save(folder.image(5, channel), image_of(4, channel))
    save(folder.image(3, 2), image_of(3, 2))
    save(folder.root / "labelsTr/case ü.nii.gz", label_of(0))
    save(folder.root / "labelsTr/-x.nii.gz", label_of(0))
    save(folder.root / "labelsTr/CASE_7.nii.gz", label_of(0))
    save(folder.root / "labelsTr/case_7.nii.gz", label_of(0))
    return [
        "case_0_0001.nii.gz is missing",
        "case_0.nii.gz is cut off",
        "case_1_0000.nii.gz (FLAIR) has 1 NaN or infinite voxels",
        "case_1.nii.gz has label values outside the declared ones",
        "case_1.nii.gz does not lie on the grid",
        "case_2.nii.gz is an empty label map",
        "case_2_0001.nii.gz does not lie on the grid",
        "case_2.nii.gz does not lie on the grid",
        "No brain voxels",
        "Wrong channel count: case_3_0002.nii.gz",
        "case_4 and case_5 have the same voxels",
        "is not plain ASCII",
        "starts with a dot or a dash",
        "Duplicate case id",
    ]


def test_everything_at_once(folder: Folder) -> None:
    expected = break_everything(folder)
    problems = [p for p in folder.check() if p.severity == "error"]
    for text in expected:
        assert sum(text in p.problem for p in problems) == 1, text
    assert len(problems) == len(expected)
    assert [p.case for p in problems] == sorted(p.case for p in problems)
    assert all(p.how_to_fix for p in problems)
    one_thread = check_cohort(load_cohort(folder.config), 1)
    assert one_thread == folder.check()


# What Snakemake does before it runs a script, in short.
DRIVER = """
import json, runpy, sys
from types import SimpleNamespace as Namespace
class Log(list): pass
script, cohort, results = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
log = Log([results + "/check_cohort.log"])
log.checks = results + "/checks.tsv"
snakemake = Namespace(
    log=log,
    params=Namespace(cohort=cohort, raw="results/raw"),
    output=Namespace(cohort=results + "/cohort.tsv"),
    threads=2,
)
runpy.run_path(script, {"snakemake": snakemake}, "__main__")
"""


def run_script(folder: Folder, results: Path) -> subprocess.CompletedProcess[str]:
    """The job in a process of its own: exit status, and what the terminal shows."""
    scripts = ROOT / "workflow_scripts"
    arguments = [str(scripts / "cohort/check_cohort.py"), json.dumps(folder.config)]
    return subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments, str(results)],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_script_lists_everything_and_stops(folder: Folder, tmp_path: Path) -> None:
    expected = break_everything(folder)
    run = run_script(folder, tmp_path)
    assert run.returncode == 1
    log = (tmp_path / "check_cohort.log").read_text()
    table = read_table(tmp_path / "checks.tsv")
    assert list(table[0]) == ["case", "severity", "problem", "how_to_fix"]
    for text in expected:
        assert text in run.stdout
        assert text in log
        assert sum(text in row["problem"] for row in table) == 1
    assert "14 errors" in run.stdout
    assert "Traceback" not in run.stdout + log
    assert not (tmp_path / "cohort.tsv").exists()


def test_script_goes_on_over_warnings(folder: Folder, tmp_path: Path) -> None:
    run = run_script(folder, tmp_path)
    assert (run.returncode, run.stdout) == (0, "")
    header = "case\tseverity\tproblem\thow_to_fix\n"
    assert (tmp_path / "checks.tsv").read_text() == header
    save(folder.image(4, 1), np.zeros(SHAPE, np.int16))
    run = run_script(folder, tmp_path)
    assert run.returncode == 0
    assert "0 errors and 1 warnings in 1 cases" in run.stdout
    assert len(read_table(tmp_path / "cohort.tsv")) == 6


def test_script_words_a_config_mistake(folder: Folder, tmp_path: Path) -> None:
    (folder.root / "dataset.json").unlink()
    assert run_script(folder, tmp_path).returncode == 1
    log = (tmp_path / "check_cohort.log").read_text()
    assert "has no dataset.json" in log
    assert "Traceback" not in log


def test_odd_bytes_in_names_reach_terminal_and_table(tmp_path: Path) -> None:
    odd = Problem("a\udcff\x1b[2J", "error", "two\nlines", "fix\tit")
    assert "a\\udcff\\x1b[2J: two lines" in checks.format_checks([odd])
    checks.write_checks([odd], tmp_path / "checks.tsv")
    (row,) = read_table(tmp_path / "checks.tsv")
    assert row["problem"] == "two lines"
    assert row["how_to_fix"] == "fix it"


def test_phantoms_have_nothing_to_be_read() -> None:
    phantom = {"shape": [16, 24, 24], "spacing": [6.0, 6.0, 5.0], "scanners": 2}
    config = {
        **{"source": "phantom", "path": None, "seed": 0, "phantom": phantom},
        **{"pool": 4, "train_cases": 3, "held_out": 2},
    }
    assert check_cohort(load_cohort(config), 4) == []


@pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real patients in {SHARED / 'data'}"
)
@pytest.mark.parametrize(
    ("source", "name", "pool"),
    [("msd", "Task01_BrainTumour", 2), ("brats", "BraTS2021_native", 1)],
)
def test_real_patients_are_fine(source: str, name: str, pool: int) -> None:
    labels = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}
    cohort: Cohort = load_cohort(
        {
            **{"source": source, "path": str(SHARED / "data" / name), "seed": 0},
            **{"pool": pool, "train_cases": 1, "held_out": 0},
            "brats": {"labels": labels},
        }
    )
    assert check_cohort(cohort, 1) == []
