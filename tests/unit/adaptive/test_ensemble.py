"""Weighted means of softmax, against numpy, and how often models are asked."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from casesim.adaptive.ensemble import combine


def logits() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: 5 * torch.randn(3, 2, 4, 5, generator=generator)
        for name in ("base", "x", "y", "unused")
    }


def test_weighted_means() -> None:
    of_model = logits()
    asked = []

    def give(model: str) -> torch.Tensor:
        asked.append(model)
        return of_model[model]

    weights = {
        "one": {"base": 0.5, "x": 0.25, "y": 0.25},
        "two": {"x": 1.0, "y": 3.0, "unused": 0.0},
    }
    found = combine(weights, give)
    assert asked == ["base", "x", "y"]
    p = {name: softmax(values.numpy(), axis=0) for name, values in of_model.items()}
    np.testing.assert_allclose(
        softmax(found["one"].numpy(), axis=0),
        0.5 * p["base"] + 0.25 * p["x"] + 0.25 * p["y"],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        softmax(found["two"].numpy(), axis=0), 0.25 * p["x"] + 0.75 * p["y"], atol=1e-6
    )


def test_each_class_may_weigh_the_models_in_its_own_way() -> None:
    of_model = logits()
    weights = {"one": {"x": [1.0, 3.0, 0.0], "y": [1.0, 1.0, 2.0], "base": [0.0] * 3}}
    asked = []

    def give(model: str) -> torch.Tensor:
        asked.append(model)
        return of_model[model]

    found = combine(weights, give)["one"].exp().numpy()
    assert asked == ["x", "y"]
    x, y = (softmax(of_model[name].numpy(), axis=0) for name in "xy")
    share = np.array([0.5, 0.75, 0.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(found, share * x + (1 - share) * y, atol=1e-6)
    with pytest.raises(ValueError, match="weights for 2 classes, x has 3"):
        combine({"two": {"x": [1.0, 1.0]}}, of_model.__getitem__)


def test_one_model_is_itself() -> None:
    of_model = logits()
    found = combine({"alone": {"x": 2.0}}, of_model.__getitem__)["alone"]
    assert torch.equal(found.argmax(0), of_model["x"].argmax(0))


def test_impossible_probabilities_stay_finite() -> None:
    certain = torch.tensor([1000.0, -1000.0]).reshape(2, 1, 1, 1)
    found = combine({"a": {"m": 1.0}}, lambda _: certain)["a"]
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    "weights",
    [{}, {"x": 0.0}, {"x": -1.0, "y": 2.0}, {"x": [1.0, 0, 1], "y": [1.0, 0, 0]}],
)
def test_weights_that_cannot_be_used(weights: dict) -> None:
    with pytest.raises(ValueError, match="ensemble bad"):
        combine({"bad": weights}, logits().__getitem__)
