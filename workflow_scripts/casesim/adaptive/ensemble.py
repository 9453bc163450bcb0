"""Weighted means of the softmax of several models, several of them in one pass.

A model is in memory while its own softmax is added, and not longer. What differs
between the ensembles of a case is the weights alone, so the models of all of them are
run once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Of a model: one weight, or one for each class, the background first.
Weight = float | Sequence[float]
Weights = Mapping[str, Mapping[str, Weight]]


def combine(
    weights: Weights, logits: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Logarithm of the weighted mean softmax of each ensemble, (class, a, b, c).

    Each class has a mean of its own: Σ w_mc p_mc / Σ w_mc over models m. The logarithm
    serves as logits: resampling to the original grid treats them as those of a single
    model, and their softmax is the mean softmax, scaled to a sum of 1 where classes
    weigh the models differently.

    Args:
        weights: ensemble to model to `Weight`, at least 0 and in no class all 0.
        logits: gives a model's logits (class, a, b, c); called once for each model
            that has a weight somewhere, in the order of their names.

    Raises:
        ValueError: an ensemble without weights, with a negative one, or with weights
            for another number of classes than the models have.
    """
    import torch

    shares = {name: _shares(name, of_model) for name, of_model in weights.items()}
    models = sorted({model for of_model in shares.values() for model in of_model})
    sums: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for model in models:
            # The sums are as large as the images, and as many as the ensembles.
            softmax = torch.softmax(logits(model).float(), dim=0).cpu()
            for name, of_model in shares.items():
                if model not in of_model:
                    continue
                share = of_model[model]
                if len(share) not in (1, len(softmax)):
                    raise ValueError(
                        f"ensemble {name} has weights for {len(share)} classes, "
                        f"{model} has {len(softmax)}"
                    )
                if name not in sums:
                    sums[name] = torch.zeros_like(softmax)
                sums[name].addcmul_(softmax, share.view(-1, 1, 1, 1))
        smallest = torch.finfo(torch.float32).tiny
        return {name: total.clamp_(min=smallest).log_() for name, total in sums.items()}


def _shares(name: str, weights: Mapping[str, Weight]) -> dict[str, torch.Tensor]:
    """Weights by class (or one for all of them) that sum to 1 over models; without the
    models that have none."""
    import torch

    given = {
        model: torch.atleast_1d(torch.as_tensor(weight, dtype=torch.float64))
        for model, weight in weights.items()
    }
    total = sum(given.values(), torch.zeros(1, dtype=torch.float64))
    if min((float(w.min()) for w in given.values()), default=-1.0) < 0 or not all(
        total
    ):
        raise ValueError(f"the weights of ensemble {name} cannot be used")
    return {m: (w / total).float() for m, w in given.items() if w.any()}
