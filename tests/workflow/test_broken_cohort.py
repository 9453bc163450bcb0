"""A broken cohort ends with the list of its problems before anything is trained."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813

from .conftest import Checkout


def write_case(folder: Path, case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros((8, 16, 16), np.uint8)
    label[2:5, 4:8, 4:8] = 1
    for channel in range(2):
        image = rng.normal(100, 10, label.shape).astype(np.float32)
        sitk.WriteImage(
            sitk.GetImageFromArray(image),
            str(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"),
        )
    sitk.WriteImage(
        sitk.GetImageFromArray(label), str(folder / "labelsTr" / f"{case}.nii.gz")
    )


def test_all_problems_are_listed_and_nothing_is_trained(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True)
    for number in range(8):
        write_case(data, f"case_{number}", number)
    (data / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "FLAIR", "1": "T1w"},
                "labels": {"background": 0, "tumour": 1},
                "numTraining": 8,
                "file_ending": ".nii.gz",
            }
        )
    )
    images, labels = data / "imagesTr", data / "labelsTr"
    whole = (images / "case_0_0000.nii.gz").read_bytes()
    (images / "case_0_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "case_1_0001.nii.gz").unlink()
    empty = sitk.GetImageFromArray(np.zeros((8, 16, 16), np.uint8))
    sitk.WriteImage(empty, str(labels / "case_2.nii.gz"))
    strange = sitk.GetImageFromArray(np.full((8, 16, 16), 7, np.uint8))
    sitk.WriteImage(strange, str(labels / "case_3.nii.gz"))
    write_case(data, "case 9", 9)

    config = {
        "cohort": {
            **{"source": "nnunet", "path": str(data)},
            **{"pool": 8, "train_cases": 7, "held_out": 0},
        },
        "regions": {},
    }
    checkout = Checkout(tmp_path / "run", config)
    result = checkout.run()
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    checks = pd.read_csv(checkout.path("results/checks.tsv"), sep="\t")
    assert list(checks.columns) == ["case", "severity", "problem", "how_to_fix"]
    errors = checks[checks.severity == "error"]
    for case in ("case_0", "case_1", "case_2", "case_3", "case 9"):
        assert (errors.case == case).any(), checks.to_string()
        assert case in result.stdout
    assert not (errors.case == "case_4").any()
    assert errors.how_to_fix.str.len().gt(10).all()
    assert not checkout.path("results/models").exists()
    assert not checkout.path("results/nnunet/preprocessed").exists()
