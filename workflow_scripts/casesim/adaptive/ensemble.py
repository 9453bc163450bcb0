"""Weighted means of the softmax of several models, several of them in one pass.

A model is in memory while its own softmax is added, and not longer. What differs
between the ensembles of a case is the weights alone, so the models of all of them are
run once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, Mapping[str, float]]


def combine(
    weights: Weights, logits: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Logarithm of the weighted mean softmax of each ensemble, (class, a, b, c).

    The logarithm serves as logits: their softmax is the mean softmax, and resampling
    to the original grid treats them as those of a single model.

    Args:
        weights: ensemble to model to weight, at least 0 and not all 0.
        logits: gives a model's logits (class, a, b, c); called once for each model
            that has a weight somewhere, in the order of their names.

    Raises:
        ValueError: an ensemble without weights, or with a negative one.
    """
    import torch

    for name, of_model in weights.items():
        if not any(of_model.values()) or min(of_model.values()) < 0:
            raise ValueError(f"the weights of ensemble {name} cannot be used")
    models = sorted(
        {m for of_model in weights.values() for m, w in of_model.items() if w > 0}
    )
    sums: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for model in models:
            # The sums are as large as the images, and as many as the ensembles.
            softmax = torch.softmax(logits(model).float(), dim=0).cpu()
            for name, of_model in weights.items():
                weight = of_model.get(model, 0.0) / sum(of_model.values())
                if weight == 0:
                    continue
                if name not in sums:
                    sums[name] = torch.zeros_like(softmax)
                sums[name].add_(softmax, alpha=weight)
        smallest = torch.finfo(torch.float32).tiny
        return {name: total.clamp_(min=smallest).log_() for name, total in sums.items()}
