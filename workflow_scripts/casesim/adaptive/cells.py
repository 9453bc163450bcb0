"""Segmenting a case without its label: by one model, or by ensembles of several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.adaptive import confidence, ensemble
from casesim.adaptive.table import write_json
from casesim.inference import cascade
from casesim.inference.label_maps import to_label_map, write_label_map
from casesim.inference.sliding_window import predict_logits

if TYPE_CHECKING:
    import numpy as np

    from casesim.nnunet.checkpoints import Model


def run_label_free(
    model: Model,
    data: np.ndarray,
    properties: Mapping[str, Any],
    label_map_path: Path,
    cell_path: Path,
    model_name: str,
    case: str,
    regions: Mapping[str, Sequence[int]],
    options: Mapping[str, Any],
    first: cascade.Preprocessed | None = None,
) -> dict[str, float]:
    """One model on one case: label map and label-free features; seconds by step.

    Args:
        model, data, properties: as in `inference.cell.run_cell`.
        label_map_path: gets the label map on the original grid.
        cell_path: gets what `table.read_cell` reads; written last.
        regions: labels, and unions of labels, by name.
        options: of `predict_logits`.
        first: the case as it is preprocessed for a cascade's first stage.
    """
    start = time.perf_counter()
    shown = cascade.input_of(model, data, properties, first, options)
    logits = predict_logits(model, shown, **options)
    said = confidence.from_logits(logits, regions)
    computed = time.perf_counter()
    label_map = to_label_map(model, logits, properties)
    write_label_map(label_map, properties, label_map_path)
    spacing = properties["sitk_stuff"]["spacing"]
    drawn = confidence.from_label_map(label_map, regions, spacing)
    cell: dict[str, Any] = {
        "model": model_name,
        "case": case,
        "regions": {name: said[name] | drawn[name] for name in regions},
    }
    write_json(cell, cell_path)
    return {
        "network": computed - start,
        "features": time.perf_counter() - computed,
    }


def run_ensembles(
    weights: ensemble.Weights,
    load: Callable[[str], Model],
    data: np.ndarray,
    properties: Mapping[str, Any],
    label_map_path: Callable[[str], Path],
    options: Mapping[str, Any],
    first: cascade.Preprocessed | None = None,
) -> dict[str, float]:
    """Segment one case with every ensemble; seconds by step.

    Args:
        weights: see `ensemble.combine`.
        load: gives a model by its name, which need not stay in memory.
        data, properties: of the preprocessed case.
        label_map_path: where the label map of an ensemble goes.
        options: of `predict_logits`.
        first: the case as it is preprocessed for a cascade's first stage.
    """
    start = time.perf_counter()
    last: Model | None = None

    def logits(name: str) -> Any:
        nonlocal last
        last = load(name)
        shown = cascade.input_of(last, data, properties, first, options)
        return predict_logits(last, shown, **options)

    combined = ensemble.combine(weights, logits)
    computed = time.perf_counter()
    assert last is not None
    for name, log_mean in combined.items():
        # What a label map needs of a model is the same for all of them.
        label_map = to_label_map(last, log_mean, properties)
        write_label_map(label_map, properties, label_map_path(name))
    return {"networks": computed - start, "write": time.perf_counter() - computed}
