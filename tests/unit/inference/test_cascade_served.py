"""A cascade through the predictors: of the matrix, and of cases without a label."""

import json
from pathlib import Path

import SimpleITK
from unit.conftest import POOL, TinyCohort

from casesim.adaptive import serving as label_free
from casesim.inference import serving
from casesim.nnunet.stages import CASCADE

SHARED = ["--threads", "1", "--gpu", "0", "--no-mirroring", "--first-stage=3d_lowres"]
SHARED += ["--labels", "edema=1;core=2;rim=3", "--regions", "WT=1,2,3"]


def test_all_predictors_segment_alike(
    cascade_cohort: TinyCohort, cascade_pair: Path, tmp_path: Path
) -> None:
    case = POOL[0]
    data = str(cascade_cohort.stem(case, CASCADE)) + ".b2nd"
    common = ["--case", case, "--data", data, *SHARED]
    one = ["--model", "m", "--checkpoint", str(cascade_pair), *common]
    cell = serving.parse_job(
        str(tmp_path),
        [
            *(*one, "--label", str(cascade_cohort.label(case))),
            *("--prediction", "cell.nii.gz", "--score", "cell.json"),
        ],
    )
    serving.make_predictor("cpu").run(cell)
    score = json.loads((tmp_path / "cell.json").read_text())
    assert score["regions"]["WT"]["n_ref"] > 0

    models = tmp_path / "models"
    models.mkdir()
    (models / "m").symlink_to(cascade_pair.parent.parent)
    (tmp_path / "w.json").write_text('{"adaptive": {"m": 1.0}}')
    predictor = label_free.make_predictor("cpu")
    for arguments in (
        ["cell", *one, "--label-map", "alone.nii.gz", "--cell", "alone.json"],
        [
            *("ensembles", "--weights", "w.json", "--models", "models"),
            *("--label-maps", "out", *common),
        ],
    ):
        predictor.run(label_free.parse_job(str(tmp_path), arguments))
    ours, *others = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name)))
        for name in ("cell.nii.gz", "alone.nii.gz", f"out/adaptive/{case}.nii.gz")
    )
    assert ours.any()
    for other in others:
        assert (ours == other).all()
