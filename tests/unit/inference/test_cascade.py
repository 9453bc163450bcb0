"""What a cascade's second stage is shown, against nnU-Net's own preprocessing."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.utilities.label_handling.label_handling import (
    convert_labelmap_to_one_hot,
)
from unit.inference.networks import (
    make_image,
    make_model,
    preprocess,
    their_labels,
    their_logits,
)

from casesim.inference import cascade

SPACING = (2.0, 1.0, 1.2)
PATCH = (8, 16, 16)


@dataclass(frozen=True)
class Case:
    data: np.ndarray
    properties: dict[str, Any]


@pytest.mark.parametrize(
    ("coarse", "fine", "transpose", "is_box"),
    [
        ((4.0, 2.0, 2.4), (2.0, 1.0, 1.2), (0, 1, 2), True),  # fine as the image is
        ((4.0, 2.5, 2.4), (2.2, 1.3, 1.4), (2, 0, 1), True),
        ((6.0, 2.0, 2.0), (6.0, 1.1, 1.1), (0, 1, 2), True),  # slices are copied
        ((4.0, 2.0, 2.4), (2.2, 1.1, 1.1), (0, 1, 2), False),
    ],
)
def test_label_maps_go_nnunet_s_way(
    coarse: tuple[float, ...],
    fine: tuple[float, ...],
    transpose: tuple[int, ...],
    is_box: bool,
) -> None:
    image = make_image((20, 34, 30))
    if not is_box:
        z, y, x = np.mgrid[:20, :34, :30]
        brain = ((z - 9) / 9) ** 2 + ((y - 16) / 15) ** 2 + ((x - 14) / 13) ** 2 < 1
        image *= brain
    first = make_model(PATCH, coarse, transpose, seed=3)
    of_image = make_model(PATCH, fine, transpose)
    second = replace(make_model(PATCH, fine, transpose, channels=5), first_stage=first)
    case, of_first = (Case(*preprocess(m, image, SPACING)) for m in (of_image, first))
    ours = cascade.input_of(second, case.data, case.properties, of_first, {})
    ours = np.asarray(ours)

    logits = their_logits(first, of_first.data)
    predicted = their_labels(first, logits, of_first.properties)
    assert len(np.unique(predicted)) > 2
    data, seg, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        image,
        predicted[None].astype(np.float32),
        {"spacing": list(SPACING)},
        of_image.plans_manager,
        of_image.configuration_manager,
        of_image.dataset_json,
    )
    masks = convert_labelmap_to_one_hot(seg[0], [1, 2, 3], np.float32)
    assert ours.dtype == np.float32
    assert masks.any()
    if is_box:
        assert np.array_equal(ours, np.concatenate([data, masks]))
    else:
        # What is segmented outside of the brain is normalised with it, there.
        assert np.array_equal(ours[:2], case.data)
        assert (ours[2:] == masks).mean() >= 0.999


def test_regions_become_masks_of_labels() -> None:
    """As in nnU-Net: the second stage sees labels, whatever the first one predicts."""
    regions = {"background": 0, "all": [1, 2, 3], "core": [2, 3], "rim": 3, "left": 1}
    model = make_model(PATCH)
    manager = model.plans_manager.get_label_manager(
        {"labels": {**regions, "ignore": 4}, "regions_class_order": [1, 2, 3, 1]}
    )
    first = replace(model, label_manager=manager)
    second = replace(
        make_model(PATCH, channels=5), label_manager=manager, first_stage=first
    )
    data, properties = preprocess(model, make_image((20, 34, 30)), (1.0, 1.0, 1.0))
    case = Case(data, properties)
    ours = np.asarray(cascade.input_of(second, data, properties, case, {}))
    predicted = their_labels(first, their_logits(first, data), properties)
    box = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
    masks = ours[len(data) :]
    assert len(masks) == 3
    for number, mask in zip((1, 2, 3), masks, strict=True):
        assert (mask == (predicted[box] == number)).mean() >= 0.999
    assert masks.any((1, 2, 3)).all()


def test_other_models_see_the_image_alone() -> None:
    model = make_model(PATCH)
    data, properties = preprocess(model, make_image((20, 34, 30)), SPACING)
    assert cascade.input_of(model, data, properties, None, {}) is data
