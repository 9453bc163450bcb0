"""Our label maps against nnU-Net's export."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.utilities.plans_handling.plans_handler import (
    ConfigurationManager,
)
from unit.inference.networks import (
    CASES,
    PATIENTS,
    make_case,
    make_model,
    predict_labels,
    preprocess,
    their_labels,
    their_logits,
    write_reference,
)

from casesim.errors import UserError
from casesim.inference import label_maps, sliding_window


@pytest.mark.parametrize("name", CASES)
def test_same_logits_and_labels_as_nnunet(name: str) -> None:
    model, data, properties = make_case(name)
    exact = their_logits(model, data)
    half = their_logits(model, data, sums=torch.float16)
    ours = sliding_window.predict_logits(model, data)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)
    assert half.dtype == torch.float16

    labels = label_maps.to_label_map(model, ours, properties)
    expected = their_labels(model, exact, properties)
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert (labels == expected).mean() >= 0.999
    assert (labels == their_labels(model, half, properties)).mean() >= 0.995
    assert len(np.unique(expected)) > 2  # or agreement would mean little


def test_another_resampling_is_left_to_nnunet() -> None:
    model, data, properties = make_case("2d-resampled")
    configuration = copy.deepcopy(model.configuration_manager.configuration)
    configuration["resampling_fn_probabilities_kwargs"]["order"] = 0
    model = replace(model, configuration_manager=ConfigurationManager(configuration))
    logits = sliding_window.predict_logits(model, data)
    expected = their_labels(model, logits, properties)
    assert np.array_equal(label_maps.to_label_map(model, logits, properties), expected)


@pytest.mark.parametrize("name", ["2d", "2d-transposed", "3d-separate-z"])
def test_regions_are_chosen_as_nnunet_does(name: str) -> None:
    model, data, properties = make_case(name)
    labels = {"background": 0, "all": [1, 2, 3], "core": [2, 3], "rim": 3, "left": 1}
    manager = model.plans_manager.get_label_manager(
        {"labels": {**labels, "ignore": 4}, "regions_class_order": [1, 2, 3, 1]}
    )
    model = replace(model, label_manager=manager)
    # Four outputs, one for each region, none for the background.
    logits = sliding_window.predict_logits(model, data)
    assert len(logits) == manager.num_segmentation_heads == 4
    found = label_maps.to_label_map(model, logits, properties)
    expected = their_labels(model, logits, properties)
    assert found.dtype == np.uint8
    assert (found == expected).mean() >= 0.999
    assert set(np.unique(expected)) == {0, 1, 2, 3}


def test_label_maps_of_whole_floats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_reference(values, path)
    labels = label_maps.read_label_map(path)
    assert labels.dtype.kind == "i"
    assert np.array_equal(labels, values)
    write_reference(values + 0.5, path)
    with pytest.raises(UserError, match="whole numbers"):
        label_maps.read_label_map(path)


@pytest.mark.skipif(not PATIENTS.is_dir(), reason="no real patients beside the project")
@pytest.mark.parametrize(
    ("patch", "spacing"), [((64, 48), (3.0, 3.0)), ((24, 24, 24), (5.0, 5.0, 5.0))]
)
def test_same_on_a_real_patient(
    patch: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    path = sorted(PATIENTS.glob("imagesTr/*.nii.gz"))[0]
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    step = 12 if len(spacing) == 2 else 2  # fewer slices suffice
    model = make_model(patch, spacing, channels=4, mirror=(1,))
    data, properties = preprocess(
        model, image[:, ::step].astype(np.float32), (step, 1.0, 1.0)
    )
    expected = their_labels(model, their_logits(model, data), properties)
    labels = predict_labels(model, data, properties)
    assert len(np.unique(expected)) > 2
    assert (labels == expected).mean() >= 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["2d-resampled", "3d-separate-z"])
def test_same_on_cuda(name: str) -> None:
    model, data, properties = make_case(name)
    expected = predict_labels(model, data, properties)
    model.network.to("cuda")
    labels = predict_labels(model, data, properties)
    assert (labels == expected).mean() >= 0.99
