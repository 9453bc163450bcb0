"""Cells without a label, with nnU-Net's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from unit.inference.networks import make_case

from casesim.adaptive import cells, confidence, table
from casesim.errors import UserError
from casesim.inference.label_maps import to_label_map
from casesim.inference.sliding_window import predict_logits

REGIONS = {"edema": (1,), "core": (2,), "enhancing": (3,), "WT": (1, 2, 3)}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def read(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_a_cell_needs_no_label_and_keeps_no_softmax(tmp_path: Path) -> None:
    model, data, properties = make_case("2d")
    cells.run_label_free(
        model,
        data,
        properties,
        tmp_path / "map.nii.gz",
        tmp_path / "cell.json",
        "finetuned/A",
        "B",
        REGIONS,
        {"mirroring": False},
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cell.json",
        "map.nii.gz",
    ]
    logits = predict_logits(model, data, mirroring=False)
    label_map = read(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(label_map, to_label_map(model, logits, properties))
    found = table.read_cell(tmp_path / "cell.json")
    assert (found["model"], found["case"]) == ("finetuned/A", "B")
    said = confidence.from_logits(logits, REGIONS)
    spacing = properties["sitk_stuff"]["spacing"]
    for name, numbers in found["regions"].items():
        expected = said[name]["expected_dice"]
        assert numbers["expected_dice"] == pytest.approx(expected)
        voxels = np.isin(label_map, REGIONS[name]).sum()
        assert numbers["volume_ml"] == pytest.approx(voxels * np.prod(spacing) / 1000)
    # A few numbers for each region, and nothing as large as an image.
    assert (tmp_path / "cell.json").stat().st_size < 5000


def test_ensembles_are_segmented_on_the_grid_of_the_image(tmp_path: Path) -> None:
    model, data, properties = make_case("2d")
    loaded = []

    def load(name: str) -> Any:
        loaded.append(name)
        return model

    cells.run_ensembles(
        {
            "adaptive": {"base": 0.5, "x": 0.5},
            "uniform_all": {"base": 1, "x": 1, "y": 1},
        },
        load,
        data,
        properties,
        lambda name: tmp_path / name / "c.nii.gz",
        {"mirroring": False},
    )
    assert loaded == ["base", "x", "y"]
    # Means of the same model are that model.
    logits = predict_logits(model, data, mirroring=False)
    alone = to_label_map(model, logits, properties)
    for name in ("adaptive", "uniform_all"):
        np.testing.assert_array_equal(read(tmp_path / name / "c.nii.gz"), alone)


def test_scores_of_several_label_maps() -> None:
    reference = np.array([[[0, 1, 1, 2]]], np.uint8)
    maps = [
        ("base", np.array([[[0, 1, 2, 2]]], np.uint8)),
        ("x", np.zeros((1, 1, 4), np.uint8)),
    ]
    labels = {"edema": [1], "core": [2], "enhancing": [3]}
    found = table.score_case("c", maps, reference, labels, {"WT": [1, 2, 3]})
    dice = found.set_index(["model", "region"])["dice"]
    assert dice["base"].to_dict() == {
        "edema": pytest.approx(2 / 3),
        "core": pytest.approx(2 / 3),
        "enhancing": pytest.approx(np.nan, nan_ok=True),
        "WT": 1,
        "mean": pytest.approx(2 / 3),
    }
    assert dice["x"]["mean"] == 0
    # Nobody labelled the voxels of the core, so they say nothing.
    ignoring = table.score_case("c", maps, reference, labels, {}, ignore=2)
    assert ignoring.set_index(["model", "region"])["dice"]["base", "edema"] == 2 / 3
    assert ignoring["n_ref"].sum() == 2 * 2
    with pytest.raises(UserError, match="segmentation by y"):
        table.score_case("c", [("y", reference[0])], reference, labels, {})
