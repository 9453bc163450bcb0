from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from unit.inference.networks import (
    CASES,
    LABELS,
    make_case,
    predict_labels,
    write_reference,
)

from casesim.errors import UserError
from casesim.inference import cell
from casesim.inference.surface import Reference

REGIONS = {"WT": (1, 2, 3), "TC": (2, 3)}


def run_cell(
    folder: Path, reference: Reference | None = None, **options: Any
) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    model, data, properties = make_case("2d")
    seconds = cell.run_cell(
        model,
        data,
        properties,
        folder / "label.nii.gz",
        folder / "predictions" / "case.nii.gz",
        folder / "scores" / "case.json",
        "finetuned/A",
        "B",
        LABELS,
        REGIONS,
        options,
        reference,
    )
    labels = predict_labels(model, data, properties, **options)
    return seconds, labels, properties


def test_cell_writes_label_map_and_score(tmp_path: Path) -> None:
    reference = np.random.default_rng(0).integers(0, 4, CASES["2d"][1], np.uint8)
    write_reference(reference, tmp_path / "label.nii.gz")
    seconds, labels, properties = run_cell(tmp_path, mirroring=False)
    assert set(seconds) == {"network", "resample", "write", "score"}
    assert min(seconds.values()) >= 0

    prediction = tmp_path / "predictions" / "case.nii.gz"
    image = SimpleITK.ReadImage(str(prediction))
    assert image.GetPixelID() == SimpleITK.sitkUInt8
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), labels)
    geometry = properties["sitk_stuff"]
    assert image.GetSpacing() == geometry["spacing"]
    assert image.GetOrigin() == geometry["origin"]
    assert image.GetDirection() == geometry["direction"]

    record = json.loads((tmp_path / "scores" / "case.json").read_text())
    assert (record["model"], record["case"]) == ("finetuned/A", "B")
    assert record["device"] == "cpu"
    assert record["seconds"] == seconds
    assert list(record["labels"]) == ["edema", "core", "enhancing"]
    metrics = compute_metrics(
        str(tmp_path / "label.nii.gz"),
        str(prediction),
        SimpleITKIO(),
        [1, 2, 3, *REGIONS.values()],
    )["metrics"]
    ours = [*record["labels"].values(), *record["regions"].values()]
    for counts, theirs in zip(ours, metrics.values(), strict=True):
        for key, value in counts.items():
            assert value == theirs[key if key.startswith("n_") else key.upper()]
    # Nothing else is left behind.
    assert [p.name for p in prediction.parent.iterdir()] == ["case.nii.gz"]


def test_cell_takes_a_reference_from_memory(tmp_path: Path) -> None:
    reference = np.zeros(CASES["2d"][1], np.uint8)
    run_cell(tmp_path, Reference.of(reference, (1.0, 1.0, 1.0)))
    record = json.loads((tmp_path / "scores" / "case.json").read_text())
    assert record["regions"]["WT"]["n_ref"] == 0
    assert record["regions"]["WT"]["fp"] > 0


@pytest.mark.parametrize("damage", ["missing", "garbage", "shape"])
def test_bad_reference_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "label.nii.gz"
    if damage == "garbage":
        path.write_bytes(b"no image")
    elif damage == "shape":
        write_reference(np.zeros((3, 4, 5), np.uint8), path)
    with pytest.raises(UserError, match=r"label\.nii\.gz"):
        run_cell(tmp_path)
    assert not (tmp_path / "scores").exists()
